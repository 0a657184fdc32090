"""A worker of Ringback: claims tasks of the type texts.duplicates, one at a time, and finds similar texts."""

import difflib
import json
import os
import random
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

BASE = os.environ.get("WORKER_PLATFORM", "http://127.0.0.1:8484").rstrip("/")
KEY = os.environ["WORKER_KEY"]
TYPE = "texts.duplicates"
WAIT_SECONDS = 30


class Stop(BaseException):
    """SIGTERM or SIGINT: claims no further task and releases the current one."""


class Canceled(Exception):
    """The client asked to cancel the task."""


class LeaseLost(Exception):
    """The lease is lost: nothing may be reported."""


def call(path: str, body: dict, timeout: float = 20) -> tuple[int, dict]:
    """One API call. Returns status and body. Raises OSError without a response."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(BASE + path, json.dumps(body).encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


class Lease:
    """Renews the lease of one task from a separate thread, and tells the run when to stop."""

    def __init__(self, task: dict) -> None:
        self._task = task
        self._seconds = task["lease"]["seconds"]
        self._ends_at = time.monotonic() + self._seconds
        self._report: dict = {}
        self._over = threading.Event()
        self.lost = False
        self.canceled = False
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def progress(self, percent: float, message: str) -> None:
        """Sent with the next heartbeat. Raises the exception that ends the run."""
        self._report = {"progress": percent, "message": message}
        if stopping.is_set():
            raise Stop
        if self.lost or time.monotonic() > self._ends_at:
            raise LeaseLost
        if self.canceled:
            raise Canceled

    def settle(self, verb: str, body: dict) -> str:
        """Ends the lease. Retries until there is a response: a repeated report under the same lease gets the same response."""
        self._over.set()
        self._thread.join()
        delay = 0.5
        while True:
            try:
                status, answer = self._say(verb, body)
                if verb == "complete" and status in (413, 422):
                    # Too large, or does not match the schema: a retry cannot fix that.
                    return self.settle("fail", {"error": {"message": answer["detail"]}, "retryable": False})
                if status < 500:
                    return answer["status"] if status == 200 else f"refused with {status} {answer['code']}"
            except OSError:
                pass
            if time.monotonic() > self._ends_at:
                return "not said in time"
            time.sleep(delay * random.uniform(0.5, 1))
            delay = min(delay * 2, 5)

    def _say(self, verb: str, body: dict, timeout: float = 20) -> tuple[int, dict]:
        return call(f"/v1/worker/tasks/{self._task['id']}/{verb}", {"lease": self._task["lease"]["token"], **body}, timeout)

    def _keep(self) -> None:
        while not self._over.wait(self._seconds / 3):
            began = time.monotonic()
            try:
                status, answer = self._say("heartbeat", self._report, self._seconds / 3)
            except OSError:
                continue  # The node restarts, perhaps: the lease is kept as soon as it answers again.
            if status == 200:
                self._ends_at = began + answer["leaseSeconds"]
                self.canceled = answer["cancelRequested"]
            elif status < 500:
                self.lost = True
                return


def find_duplicates(given: dict, progress: Callable[[float, str], None]) -> dict:
    texts, threshold = given["texts"], given.get("threshold", 0.9)
    pairs, compared, total = [], 0, len(texts) * (len(texts) - 1) // 2
    matcher = difflib.SequenceMatcher(autojunk=False)
    for second in range(1, len(texts)):
        matcher.set_seq2(texts[second])
        for first in range(second):
            matcher.set_seq1(texts[first])
            # Cheap upper bounds first.
            if min(matcher.real_quick_ratio(), matcher.quick_ratio()) >= threshold:
                ratio = matcher.ratio()
                if ratio >= threshold:
                    pairs.append({"first": first, "second": second, "ratio": round(ratio, 4)})
            compared += 1
            progress(100 * compared / total, f"{compared} of {total} pairs")
    return {"compared": total, "pairs": pairs}


def run(task: dict) -> None:
    print(f"claimed {task['id']} try {task['try']}", flush=True)
    lease = Lease(task)
    try:
        result = find_duplicates(task["input"], lease.progress)
        ended = lease.settle("complete", {"result": result})
    except Stop:
        ended = lease.settle("release", {})
    except LeaseLost:
        # Reported nevertheless: if the server has not noticed yet, the next try starts earlier.
        ended = lease.settle("fail", {"error": {"code": "lease_lost", "message": "The worker was cut off for too long."}})
    except Canceled:
        ended = lease.settle("fail", {"error": {"code": "canceled", "message": "The run ended when it was asked to."}})
    except Exception as error:
        ended = lease.settle("fail", {"error": {"message": f"{type(error).__name__}: {error}"}})
    print(f"ended {task['id']} {ended}", flush=True)


stopping = threading.Event()
idle = False


def stop(*_: object) -> None:
    stopping.set()
    if idle:
        raise Stop  # Out of the waiting call. The platform notices that its caller is gone, and keeps the tasks.


def main() -> None:
    global idle
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print("ready", flush=True)
    delay = 0.5
    while not stopping.is_set():
        try:
            idle = True
            status, answer = call("/v1/worker/claim", {"types": [TYPE], "waitSeconds": WAIT_SECONDS}, WAIT_SECONDS + 15)
        except Stop:
            break
        except OSError as error:
            status, answer = 503, {"detail": str(error)}
        finally:
            idle = False
        if status == 200:
            delay = 0.5
            for task in answer["tasks"]:
                run(task)
        elif status >= 500 or status == 429:
            print(f"waiting for the platform: {answer['detail']}", flush=True)
            stopping.wait(delay * random.uniform(0.5, 1))
            delay = min(delay * 2, 30)
        else:
            raise SystemExit(f"The platform refuses claims with {status}: {answer['detail']}")
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
