"""Storages that fsspec supports, such as object stores."""

from __future__ import annotations

import logging
import typing as t

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.errors import TargetError

Files: t.TypeAlias = t.Any
"""A file system of fsspec, which has no types."""

_LOGGERS = (
    *("aiobotocore", "botocore", "s3fs", "s3transfer"),
    *("adlfs", "aiohttp", "azure", "fsspec", "gcsfs", "google", "msal", "urllib3"),
)


def open_storage(
    url: str, what: str, error: type[TargetError], **params: t.Any
) -> tuple[Files, str]:
    """Return the storage of a URL, and the place in it.

    Args:
        url: The URL.
        what: What is there, for messages.
        error: The kind of error to raise if the storage's package is missing. Those of storages
            may be of any kind, and quote anything.
        params: For the storage, such as credentials.
    """
    import fsspec  # noqa: PLC0415 - slow to import, and for remote files only

    for name in _LOGGERS:  # at DEBUG they show URLs and headers, with credentials
        talkative = logging.getLogger(name)
        talkative.setLevel(max(logging.INFO, talkative.level))
    try:
        return t.cast("tuple[Files, str]", fsspec.core.url_to_fs(url, **params))
    except (ImportError, ValueError):
        msg = (
            f"{what} is in a storage that needs another Python package; install fsspec's package "
            "for it in the target's environment (s3fs for s3://, gcsfs for gs://, adlfs for "
            "abfs://)"
        )
        raise error("storage_package_missing", msg) from None
    except Exception as fault:  # noqa: BLE001 - each storage has its own, as for a host that is down
        msg = f"{what} cannot be used ({type(fault).__name__}); check the URL and the credentials"
        raise error("storage_unusable", msg) from None
