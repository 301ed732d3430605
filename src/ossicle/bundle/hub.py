"""Bundles on the Hugging Face Hub: upload, and download into its local cache."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from ossicle.bundle.folder import load_bundle, open_bundle
from ossicle.bundle.schema import CARD, CONFIG, WEIGHTS, read_bundle_config
from ossicle.errors import BundleRefused

HUB_ID = r"[\w][\w.-]*/[\w][\w.-]*"  # user/name


def push_to_hub(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Uploads a bundle to the Hugging Face Hub as `repository` ("user/name") and returns its address.

    For a tuned head the configuration and the tensors are checked; its encoder is not uploaded and not needed.

    Raises: BundleRefused or WeightsRefused for a folder that is not a valid bundle, before the upload.
    """
    if "encoder" in read_bundle_config(Path(folder)):
        open_bundle(folder)
    else:
        load_bundle(folder)
    import huggingface_hub

    api = huggingface_hub.HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    return str(api.upload_folder(folder_path=folder, repo_id=repository, allow_patterns=[CONFIG, WEIGHTS, CARD]))


def hub_folder(repository: str, *, files: Sequence[str], local_files_only: bool) -> Path:
    """These files of a Hugging Face Hub repository, in the local cache.

    Args:
        files: names, or patterns of names

    Raises: BundleRefused if they cannot be downloaded, or if the user's name is a local folder.
    """
    user, name = repository.split("/")
    if Path(user).is_dir():
        near = difflib.get_close_matches(name, (path.name for path in Path(user).iterdir() if path.is_dir()), n=3)
        meant = f"; did you mean {', '.join(f'{user}/{other}' for other in near)}?" if near else "."
        raise BundleRefused(f"{repository}: there is no such folder in {user}{meant}")
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            repository, allow_patterns=list(files), local_files_only=local_files_only
        )
    # Errors of the Hub, of HTTP and of the cache have no common base class below Exception.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BundleRefused(
            f"{repository}: there is no such folder, and the download from the Hugging Face Hub failed: {reason}"
        ) from error
    return Path(folder)
