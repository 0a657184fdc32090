"""A receiver of Ringback's webhooks: verifies every signature, and prints a line for every new event."""

import base64
import json
import os
import re
import sys
import threading
import time
import urllib.request
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

ISSUER = os.environ["ISSUER"]
AUDIENCE = os.environ["AUDIENCE"]
JWKS_URL = os.environ.get("JWKS_URL") or ISSUER.rstrip("/") + "/.well-known/jwks.json"
ENDPOINT_ID = os.environ.get("ENDPOINT_ID")
PORT = int(os.environ.get("PORT", "9000"))

TOLERANCE_SECONDS = 300
MOST_BYTES = 1 << 20
MOST_IDS = 100_000
# Members that would let the sender choose the key or how the payload is read. Ringback never sends them.
REFUSED = ("crit", "b64", "jwk", "jku", "x5u", "x5c")


class Refused(Exception):
    """The webhook is invalid: 401. Any other exception means that it could not be verified: 503, and the sender retries."""


class Keys:
    """The issuer's ES256 keys: cached for 10 minutes, fetched again for an unknown kid, at most every 30 s."""

    MAX_AGE = 600
    COOLDOWN = 30

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str, ec.EllipticCurvePublicKey] = {}
        self._fetched_at = float("-inf")
        self._lock = threading.Lock()

    def get(self, kid: str) -> ec.EllipticCurvePublicKey:
        with self._lock:
            age = time.monotonic() - self._fetched_at
            if age > self.MAX_AGE or (kid not in self._keys and age > self.COOLDOWN):
                self._fetch()
            if kid not in self._keys:
                raise Refused("unknown_key")
            return self._keys[kid]

    def _fetch(self) -> None:
        with urllib.request.urlopen(self._url, timeout=5) as response:
            found = json.load(response)["keys"]
        self._keys = {
            key["kid"]: ec.EllipticCurvePublicNumbers(
                int.from_bytes(base64url(key["x"]), "big"), int.from_bytes(base64url(key["y"]), "big"), ec.SECP256R1()
            ).public_key()
            for key in found
            if key.get("kty") == "EC" and key.get("crv") == "P-256" and key.get("alg", "ES256") == "ES256"
        }
        self._fetched_at = time.monotonic()


class Seen:
    """The latest handled ids. A database would be better: insert … on conflict do nothing."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, event_id: str) -> bool:
        with self._lock:
            if event_id in self._ids:
                return False
            self._ids[event_id] = None
            if len(self._ids) > MOST_IDS:
                self._ids.popitem(last=False)
            return True


def base64url(text: str) -> bytes:
    if not re.fullmatch("[A-Za-z0-9_-]*", text):
        raise ValueError("not base64url")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify(jws: str | None, body: bytes, keys: Keys) -> dict:
    """The event in `body` if its detached JWS is valid (RFC 7515, Appendix F)."""
    if not jws:
        raise Refused("missing_header")
    match jws.split("."):
        case [head, "", tail] if head and tail:
            pass
        case _:
            raise Refused("malformed")
    try:
        header = json.loads(base64url(head))
        signature = base64url(tail)
    except ValueError:
        raise Refused("malformed") from None
    if not isinstance(header, dict) or any(name in header for name in REFUSED):
        raise Refused("malformed")
    if header.get("alg") != "ES256" or len(signature) != 64:
        raise Refused("bad_signature")
    if not isinstance(header.get("kid"), str):
        raise Refused("malformed")

    signed = head.encode() + b"." + base64.urlsafe_b64encode(body).rstrip(b"=")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        keys.get(header["kid"]).verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise Refused("bad_signature") from None

    if header.get("typ") != "webhook+jws":
        raise Refused("wrong_type")
    if header.get("iss") != ISSUER:
        raise Refused("wrong_issuer")
    if header.get("aud") != AUDIENCE:
        raise Refused("wrong_audience")
    iat = header.get("iat")
    # `type`, not isinstance: in Python True is an int.
    if type(iat) not in (int, float) or not abs(time.time() - iat) <= TOLERANCE_SECONDS:
        raise Refused("stale")
    try:
        event = json.loads(body.decode())
    except ValueError:
        raise Refused("malformed") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str) or not isinstance(event.get("id"), str):
        raise Refused("malformed")
    if event["id"] != header.get("jti"):
        raise Refused("malformed")
    return event


KEYS = Keys(JWKS_URL)
SEEN = Seen()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 15

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal():
            return self._answer(411)
        if int(length) > MOST_BYTES:
            return self._answer(413)
        body = self.rfile.read(int(length))
        try:
            event = verify(self.headers.get("webhook-jws"), body, KEYS)
        except Refused as refused:
            return self._answer(401, {"title": str(refused), "status": 401})
        except Exception as error:  # the keys could not be fetched
            self.log_error("not judged: %s", error)
            return self._answer(503)
        data = event["data"] if isinstance(event.get("data"), dict) else {}
        if event["type"] == "endpoint.verification":
            if ENDPOINT_ID and data.get("endpointId") != ENDPOINT_ID:
                return self._answer(403)
            return self._answer(200, {"challenge": data.get("challenge")})
        if SEEN.add(event["id"]):
            # Your work: store the event here, then answer. If that fails, remove the id and answer 500.
            # One write per line: print() makes several, which threads would mix.
            sys.stdout.write(f"{event['id']} {event['type']} {data.get('id', '-')}\n")
            sys.stdout.flush()
        self._answer(204)

    def _answer(self, status: int, document: dict | None = None) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        if document is not None:
            self.send_header("content-type", "application/json")
        if status != 204:
            self.send_header("content-length", str(len(body)))
        if status in (411, 413):
            # Unread bytes must not be taken for the next request.
            self.send_header("connection", "close")
        try:
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            # The sender closed the connection and will retry.
            self.close_connection = True

    def log_request(self, *_: object) -> None:
        """One line per event is enough."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Receiver)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()
