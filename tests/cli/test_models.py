"""`ossicle models`: what a person sees."""

from typer.testing import CliRunner

from ossicle.cli.models import app

run = CliRunner()


def test_list_shows_what_matches() -> None:
    done = run.invoke(app, ["list", "passt_tiny_*"])
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [
        f"passt_tiny_s{s}" for s in (10, 12, 14, 16, 20)
    ]


def test_show_counts_parameters_and_work() -> None:
    done = run.invoke(app, ["show", "passt_s_swa_p16_128_ap476"])
    assert done.exit_code == 0
    for part in ("86,153,758", "127.4 G", "1,190", "Apache-2.0", "passt-s-f128-p16-s10-ap.476-swa.pt"):
        assert part in done.stdout


def test_an_unknown_name_is_the_users_error_in_one_sentence() -> None:
    done = run.invoke(app, ["show", "passt_bse_s10"])
    assert done.exit_code == 1
    assert "passt_base_s10" in done.stderr and len(done.stderr.splitlines()) == 1
    assert run.invoke(app, ["list", "whisper*"]).exit_code == 1
