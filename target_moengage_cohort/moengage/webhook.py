"""One POST to the user's webhook; never raises for faults of the webhook or the network.

No message has its address, because those of chats are secrets.
"""

from __future__ import annotations

import logging
import threading
import typing as t
from urllib.parse import urlsplit

import requests

from target_moengage_cohort.moengage import deadline
from target_moengage_cohort.settings import is_loopback

if t.TYPE_CHECKING:
    from collections.abc import Mapping

_TAKEN = range(200, 300)


class WebhookAnswer(t.NamedTuple):
    """The outcome of a POST.

    Attributes:
        fault: Why it was not taken, in words; none if it was.
        is_refused: Whether the webhook refused this body, and may take another one.
    """

    fault: str | None = None
    is_refused: bool = False


def post(url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> WebhookAnswer:
    """Send a body once; return within so many seconds, whatever the receiver does."""
    answers = [WebhookAnswer(f"no answer within {seconds:.1f} s")]
    # A thread, because nothing else bounds the look-up of a name.
    thread = threading.Thread(
        target=lambda: answers.append(_attempt(url, body, headers, seconds)), daemon=True
    )
    thread.start()
    thread.join(seconds)
    return answers[-1]


def _attempt(url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> WebhookAnswer:
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # its lines have the address
    loopback = is_loopback(urlsplit(url).hostname or "")
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, deadline.DeadlineAdapter())
            deadline.begin(seconds)
            with session.post(
                url,
                data=body,
                headers={"Content-Type": "application/json", **headers},
                auth=lambda request: request,  # `requests` might add that of ~/.netrc
                timeout=seconds,
                proxies={"http": "", "https": "", "all": ""} if loopback else {},
                allow_redirects=False,
                stream=True,
            ) as response:
                status = response.status_code
    except requests.Timeout:
        return WebhookAnswer(f"no answer within {seconds:.1f} s")
    except requests.exceptions.SSLError:
        return WebhookAnswer("the TLS connection failed")
    except (OSError, ValueError) as error:  # all errors of `requests` are
        return WebhookAnswer(f"the connection failed ({type(error).__name__})")
    if status in _TAKEN:
        return WebhookAnswer()
    is_for_good = 400 <= status < 500 and status not in {408, 429}  # noqa: PLR2004 - HTTP's
    return WebhookAnswer(f"HTTP {status}", is_refused=is_for_good)
