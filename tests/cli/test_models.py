"""`ossicle models`: what a person sees."""

from typer.testing import CliRunner

from ossicle.cli.models import app

run = CliRunner()


def test_list_shows_what_matches() -> None:
    done = run.invoke(app, ["list", "passt_tiny_s*"])
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [
        f"passt_tiny_s{s}" for s in (10, 12, 14, 16, 20)
    ]


def test_show_counts_parameters_and_work() -> None:
    done = run.invoke(app, ["show", "passt_base_s10"])
    assert done.exit_code == 0
    for part in ("86,153,758", "127.4 G", "1,190", "passt_base_s10.audioset_ap476", "passt_base_s10.deit_imagenet"):
        assert part in done.stdout


def test_show_says_where_weights_come_from() -> None:
    done = run.invoke(app, ["show", "passt_s_swa_p16_128_ap476"])
    assert done.exit_code == 0 and done.stdout.startswith("passt_base_s10.audioset_ap476\n")
    for part in (
        "527 labels (multi-label)",
        "mAP 0.476",
        "unknown: the repository",
        "344.7 MB",
        "ap.476-swa.pt",
        "302903fa",
    ):
        assert part in done.stdout
    start = run.invoke(app, ["show", "deit_base_distilled_patch16_384"]).stdout
    assert (
        "d0272ac0... (from the name of the file)" in start
        and "Apache-2.0" in start
        and "predicts          nothing" in start
    )


def test_weights_are_listed_with_license_metric_and_size() -> None:
    done = run.invoke(app, ["list", "*esc50_fold1*", "--weights"])
    assert done.exit_code == 0
    words = done.stdout.splitlines()[1].split()
    assert words == "passt_base_s10.esc50_fold1_acc967 ESC-50 accuracy 0.967 unknown 341.7 MB 32 kHz".split()
    assert "ossicle models list --weights" in run.invoke(app, ["list", "nothing", "--weights"]).stderr
    assert "try --weights" in run.invoke(app, ["list", "passt_s_swa*"]).stderr


def test_an_unknown_name_is_the_users_error_in_one_sentence() -> None:
    done = run.invoke(app, ["show", "passt_bse_s10"])
    assert done.exit_code == 1
    assert "passt_base_s10" in done.stderr and len(done.stderr.splitlines()) == 1
    assert run.invoke(app, ["list", "whisper*"]).exit_code == 1
