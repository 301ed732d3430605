"""Bundles on the Hugging Face Hub: upload, and download into its local cache."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ossicle import __version__
from ossicle.bundle.card import Card, card_text, relicensed
from ossicle.bundle.folder import load_bundle, open_bundle
from ossicle.bundle.schema import CARD, CONFIG, WEIGHTS, read_bundle_config
from ossicle.errors import BundleRefused, SettingRefused, first_line

HUB_ID = r"[\w][\w.-]*/[\w][\w.-]*(@[\w][\w./-]*)?"  # user/name, and a branch, tag or commit


def push_to_hub(
    folder: str | Path, repository: str, *, private: bool = False, weights_license: str | None = None
) -> str:
    """Uploads a bundle to the Hugging Face Hub as `repository` ("user/name") and returns its address.

    The card is that of the bundle, with the license and the repository's name. For a tuned head the configuration and
    the tensors are checked; its encoder is not uploaded and not needed, and if it was a folder, only its name is
    published.

    Args:
        private: whether a new repository is visible to its owner alone
        weights_license: in place of the bundle's, which must have one if this is not given; "unknown" is an answer

    Raises:
        BundleRefused, WeightsRefused: the folder is not a valid bundle, or the Hub refuses the upload
        SettingRefused: no license
    """
    folder = Path(folder)
    config, files = published_files(folder)
    config["weights_license"] = weights_license or config["weights_license"]
    if config["weights_license"] is None:
        raise SettingRefused(
            f"{repository}: weights are published with their license; state it as weights_license, for example "
            '"CC-BY-4.0", or "unknown" if nobody has said.'
        )
    import huggingface_hub

    text = (folder / CARD).read_text("utf-8") if CARD in files else card_text(config, Card())
    card = relicensed(text, config["weights_license"])
    card = card.replace("this folder", repository).replace("THIS_FOLDER", repository)
    files |= {CONFIG: json.dumps(config, indent=2).encode(), CARD: card.encode()}
    additions = [
        huggingface_hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
        for name, content in files.items()
    ]
    api = huggingface_hub.HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(repository, additions, commit_message=f"Upload a bundle of ossicle {__version__}")
    # Errors of the Hub, of HTTP and of reading the files have no common base class below Exception.
    except Exception as error:
        raise BundleRefused(
            f"{repository}: the upload to the Hugging Face Hub failed: {first_line(error)}; a token that may write "
            "there is needed (`hf auth login`, or the variable HF_TOKEN)."
        ) from error
    return str(address)


def published_files(folder: Path) -> tuple[dict[str, Any], dict[str, bytes | Path]]:
    """The configuration of a bundle, and its files by name as they are published, members' files included.

    Raises: BundleRefused, WeightsRefused for anything but a valid bundle.
    """
    config = read_bundle_config(folder)
    files: dict[str, bytes | Path] = {CARD: folder / CARD} if (folder / CARD).is_file() else {}
    if "members" in config:
        for name in config["members"]:
            files |= {f"{name}/{file}": content for file, content in published_files(folder / name)[1].items()}
    elif "encoder" in config:
        open_bundle(folder)
        files[WEIGHTS] = folder / WEIGHTS
        name = config["encoder"]["name"]
        # The folders around it mean nothing elsewhere.
        config["encoder"]["name"] = Path(name).name if Path(name).is_absolute() else name
    else:
        load_bundle(folder)
        files[WEIGHTS] = folder / WEIGHTS
    return config, files | {CONFIG: json.dumps(config, indent=2).encode()}


def hub_bundle(repository: str, *, revision: str | None, local_files_only: bool) -> Path:
    """The bundle of a repository, in the local cache; see `hub_folder`.

    Raises: BundleRefused also for a repository without a bundle.
    """
    names = (CONFIG, WEIGHTS, CARD)
    files = (*names, *(f"member*/{name}" for name in names))
    folder = hub_folder(repository, files=files, revision=revision, local_files_only=local_files_only)
    try:
        found = json.loads((folder / CONFIG).read_bytes())
        what = None if "schema_version" in found else f"its {CONFIG} is of a {found.get('model_type', 'thing')}"
    except FileNotFoundError:
        what = f"there is no {CONFIG}"
    except (ValueError, AttributeError, TypeError):
        what = f"its {CONFIG} is no configuration"
    if what is not None:
        raise BundleRefused(f"{repository}: this repository of the Hugging Face Hub has no ossicle bundle: {what}.")
    return folder


def hub_folder(
    repository: str, *, files: Sequence[str], revision: str | None = None, local_files_only: bool = False
) -> Path:
    """These files of a Hugging Face Hub repository, in the local cache.

    Args:
        repository: "user/name", or "user/name@revision"
        files: names, or patterns of names
        revision: branch, tag or commit; by default the repository's main branch

    Raises:
        BundleRefused: they cannot be downloaded, or the user's name is a local folder
        SettingRefused: two revisions
    """
    name, _, named = repository.partition("@")
    if named and revision and named != revision:
        raise SettingRefused(f"{repository}: revision={revision} is another revision than {named}; give one.")
    revision = revision or named or None
    user, last = name.split("/")
    if Path(user).is_dir():
        near = difflib.get_close_matches(last, (path.name for path in Path(user).iterdir() if path.is_dir()), n=3)
        meant = f"; did you mean {', '.join(f'{user}/{other}' for other in near)}?" if near else "."
        raise BundleRefused(f"{repository}: there is no such folder in {user}{meant}")
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(files), local_files_only=local_files_only
        )
    # Errors of the Hub, of HTTP and of the cache have no common base class below Exception.
    except Exception as error:
        raise BundleRefused(f"{repository}: there is no such folder, and {_said(error, revision)}") from error
    return Path(folder)


def _said(error: Exception, revision: str | None) -> str:
    """What the Hub or its cache says, in a clause."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "the Hugging Face Hub gives this repository only to those who were granted access, by their token."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            "the Hugging Face Hub has no such repository, or it is private: then a token of yours is needed "
            "(`hf auth login`, or the variable HF_TOKEN)."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository of this name on the Hugging Face Hub has no revision {revision}."
    reason = error.__cause__ or error
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(
        reason, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled
    ):
        return "without network access only what was downloaded whole can be used, and this was not."
    return f"the download from the Hugging Face Hub broke off ({first_line(reason)}); try again, it continues there."
