"""File systems of object stores, through fsspec, for calls that block."""

from typing import Any

from tubelet.models.errors import MissingExtra
from tubelet.service.config.config import FetchConfig
from tubelet.service.types.uri import Uri


def open_filesystem(uri: Uri, config: FetchConfig) -> Any:
    """Return the file system for objects at ``uri``, with the options of the configuration.

    Raises:
        MissingExtra: it needs a library that is not installed.
    """
    own: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    try:
        if uri.scheme == "s3":
            from s3fs import S3FileSystem

            return S3FileSystem(**config.options.get("s3", {}) | own)
        from gcsfs.core import GCSFileSystem  # as for reading: the other client asks about buckets first

        return GCSFileSystem(**config.options.get("gs", {}) | own)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{uri.scheme} URIs need a library: pip install 'tubelet[{uri.scheme}]'"
        ) from error
