"""The Segments and the Analytics API of an emulator, as the package's clients call them."""

import http.server
import json
import threading

import msgspec

from target_moengage_cohort.delivery.delivery import live_calls
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.moengage.analytics import Analytics
from target_moengage_cohort.moengage.filters import Filter, FilterGroup, in_segment
from target_moengage_cohort.moengage.segments import FileSource, Segments
from target_moengage_cohort.settings import load
from tests.support.singer import config


def any_of(*filters: Filter) -> FilterGroup:
    """Return the group of users who pass any of the filters."""
    return FilterGroup("or", filters)


def all_users() -> Filter:
    """Return the filter that every user passes."""
    return in_segment("moe_all_users", "All Users")


def nested(group: FilterGroup) -> Filter:
    """Return a group as one filter of another group."""
    return {"filter_type": "nested_filters", **msgspec.structs.asdict(group)}


def filters_on(attribute, value):
    """Return the filters of a segment, as MoEngage documents them."""
    of_value = {
        "filter_type": "user_attributes",
        "name": attribute,
        "data_type": "string",
        "category": "Tracked Custom Attribute",
        "operator": "in",
        "negate": False,
        "value": [value],
        "case_sensitive": True,
    }
    return {"included_filters": {"filter_operator": "and", "filters": [of_value]}}


class Callers:
    """Both clients, whose waits turn the emulator's clock."""

    def __init__(self, emulator, store=None, **settings):
        self.emulator, self.waits = emulator, []
        self.settings = load(config(emulator, **{"id_attribute": "uid", **settings})).settings
        clock = emulator.clock
        timing = Timing(clock.monotonic, clock.wall, lambda longest: longest)
        self.calls = live_calls(self.settings, self.wait, store, timing)
        self.segments = Segments(self.calls.send)
        self.hasty = Segments(self.calls.send_at_once)
        self.analytics = Analytics(self.calls.send, self.settings.id_attribute)

    def wait(self, seconds):
        """Let the time pass at once, in steps as long as the waits."""
        if seconds:  # else it only asks whether to end
            self.waits.append(seconds)
        self.emulator.clock.advance(seconds)
        return False


class FileServer:
    """A server on loopback that has files, and takes callbacks."""

    def __init__(self):
        self.files, self.callbacks, self.called = {}, [], threading.Condition()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content = outer.files.get(self.path)
                self.send_response(200 if content is not None else 404)
                self.end_headers()
                self.wfile.write(content or b"")

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with outer.called:
                    outer.callbacks.append(json.loads(body))
                    outer.called.notify_all()
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def source(self, content, **fields):
        """Offer a file, and return where it is; its callback comes here."""
        path = f"/{len(self.files)}.csv"
        self.files[path] = content
        fields = {"attribute_name": "uid", "callback_url": f"{self.url}/done", **fields}
        return FileSource(file_url=self.url + path, **fields)

    def wait_for_callbacks(self, count):
        """Return the callbacks once there are so many."""
        with self.called:
            assert self.called.wait_for(lambda: len(self.callbacks) >= count, 10)
            return self.callbacks
