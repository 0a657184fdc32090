//! A receiver of Ringback's webhooks: verifies every signature, and prints a line for every new event.

use std::collections::{HashMap, HashSet, VecDeque};
use std::env;
use std::error::Error;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use ring::signature::{UnparsedPublicKey, ECDSA_P256_SHA256_FIXED};
use serde_json::{json, Value};
use tiny_http::{Header, Method, Request, Response, Server};

const TOLERANCE_SECONDS: f64 = 300.0;
const MOST_BYTES: u64 = 1 << 20;
const MOST_IDS: usize = 100_000;
const KEYS_MAX_AGE: Duration = Duration::from_secs(600);
const KEYS_COOLDOWN: Duration = Duration::from_secs(30);
const WORKERS: usize = 4;
/// Members that would let the sender choose the key or how the payload is read. Ringback never sends them.
const REFUSED: [&str; 6] = ["crit", "b64", "jwk", "jku", "x5u", "x5c"];

enum Failure {
    /// The webhook is invalid: 401.
    Refused(&'static str),
    /// It could not be verified: 503, and the sender retries.
    NotJudged(Box<dyn Error>),
}
use Failure::{NotJudged, Refused};

/// The issuer's ES256 keys: cached for 10 minutes, fetched again for an unknown kid, at most every 30 s.
struct Keys {
    url: String,
    cache: Mutex<Option<(Instant, HashMap<String, Vec<u8>>)>>,
}

impl Keys {
    fn get(&self, kid: &str) -> Result<Vec<u8>, Failure> {
        let mut cache = self.cache.lock().unwrap();
        let good = cache
            .as_ref()
            .is_some_and(|(at, keys)| at.elapsed() < if keys.contains_key(kid) { KEYS_MAX_AGE } else { KEYS_COOLDOWN });
        if !good {
            *cache = Some((Instant::now(), self.fetch().map_err(NotJudged)?));
        }
        let (_, keys) = cache.as_ref().unwrap();
        keys.get(kid).cloned().ok_or(Refused("unknown_key"))
    }

    fn fetch(&self) -> Result<HashMap<String, Vec<u8>>, Box<dyn Error>> {
        let mut response = ureq::get(&self.url)
            .config()
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .call()?;
        let set: Value = response.body_mut().read_json()?;
        let mut keys = HashMap::new();
        for key in set["keys"].as_array().ok_or("there are no keys in it")? {
            let ours = key["kty"] == "EC" && key["crv"] == "P-256" && (key["alg"] == "ES256" || key["alg"].is_null());
            if let (true, Some(kid), Some(x), Some(y)) = (ours, key["kid"].as_str(), key["x"].as_str(), key["y"].as_str()) {
                // The point, uncompressed (SEC 1).
                let point = [vec![4], URL_SAFE_NO_PAD.decode(x)?, URL_SAFE_NO_PAD.decode(y)?].concat();
                keys.insert(kid.to_owned(), point);
            }
        }
        Ok(keys)
    }
}

/// The latest handled ids. A database would be better: insert … on conflict do nothing.
#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    fn add(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > MOST_IDS {
            let oldest = self.order.pop_front().unwrap();
            self.ids.remove(&oldest);
        }
        true
    }
}

struct Receiver {
    issuer: String,
    audience: String,
    endpoint_id: Option<String>,
    keys: Keys,
    seen: Mutex<Seen>,
}

impl Receiver {
    /// The event in `body` if its detached JWS is valid (RFC 7515, Appendix F).
    fn verify(&self, jws: Option<&str>, body: &[u8]) -> Result<Value, Failure> {
        let jws = jws.ok_or(Refused("missing_header"))?;
        let parts: Vec<&str> = jws.split('.').collect();
        let [head, "", tail] = parts[..] else {
            return Err(Refused("malformed"));
        };
        let malformed = |_| Refused("malformed");
        let signature = URL_SAFE_NO_PAD.decode(tail).map_err(malformed)?;
        let header = URL_SAFE_NO_PAD.decode(head).map_err(malformed)?;
        let header: Value = serde_json::from_slice(&header).map_err(|_| Refused("malformed"))?;
        if signature.is_empty() || !header.is_object() || REFUSED.iter().any(|name| header.get(name).is_some()) {
            return Err(Refused("malformed"));
        }
        if header["alg"] != "ES256" {
            return Err(Refused("bad_signature"));
        }
        let kid = header["kid"].as_str().ok_or(Refused("malformed"))?;
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(body));
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.keys.get(kid)?)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| Refused("bad_signature"))?;

        if header["typ"] != "webhook+jws" {
            return Err(Refused("wrong_type"));
        }
        if header["iss"] != self.issuer {
            return Err(Refused("wrong_issuer"));
        }
        if header["aud"] != self.audience {
            return Err(Refused("wrong_audience"));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        match header["iat"].as_f64() {
            Some(iat) if (now - iat).abs() <= TOLERANCE_SECONDS => {}
            _ => return Err(Refused("stale")),
        }
        let event: Value = serde_json::from_slice(body).map_err(|_| Refused("malformed"))?;
        if !event["type"].is_string() || !event["id"].is_string() || event["id"] != header["jti"] {
            return Err(Refused("malformed"));
        }
        Ok(event)
    }

    fn answer(&self, mut request: Request) {
        if *request.method() != Method::Post {
            return respond(request, 405, None);
        }
        let mut body = Vec::new();
        match request.as_reader().take(MOST_BYTES + 1).read_to_end(&mut body) {
            // The sender closed the connection: there is nobody to answer.
            Err(_) => return,
            Ok(length) if length as u64 > MOST_BYTES => return respond(request, 413, None),
            Ok(_) => {}
        }
        let jws = request.headers().iter().find(|it| it.field.equiv("webhook-jws"));
        match self.verify(jws.map(|it| it.value.as_str()), &body) {
            Err(Refused(why)) => respond(request, 401, Some(json!({ "title": why, "status": 401 }))),
            Err(NotJudged(error)) => {
                eprintln!("not judged: {error}");
                respond(request, 503, None)
            }
            Ok(event) if event["type"] == "endpoint.verification" => match &self.endpoint_id {
                Some(id) if event["data"]["endpointId"] != *id => respond(request, 403, None),
                _ => respond(request, 200, Some(json!({ "challenge": event["data"]["challenge"] }))),
            },
            Ok(event) => {
                let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
                if self.seen.lock().unwrap().add(&text(&event["id"])) {
                    // Your work: store the event here, then answer. If that fails, remove the id and answer 500.
                    println!("{} {} {}", text(&event["id"]), text(&event["type"]), text(&event["data"]["id"]));
                }
                respond(request, 204, None)
            }
        }
    }
}

fn respond(request: Request, status: u16, document: Option<Value>) {
    let json: Header = "content-type: application/json".parse().unwrap();
    // The sender may have closed the connection.
    let _ = match document {
        Some(document) => request.respond(
            Response::from_string(document.to_string())
                .with_status_code(status)
                .with_header(json),
        ),
        None => request.respond(Response::empty(status)),
    };
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let issuer = env::var("ISSUER").map_err(|_| "set ISSUER: the public URL of the Ringback that calls you")?;
    let audience = env::var("AUDIENCE").map_err(|_| "set AUDIENCE: your endpoint's URL as registered")?;
    let well_known = || format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/'));
    let keys = Keys {
        url: env::var("JWKS_URL").unwrap_or_else(|_| well_known()),
        cache: Mutex::new(None),
    };
    let port = env::var("PORT").unwrap_or_else(|_| "9000".to_owned());
    let server = Arc::new(Server::http(format!("127.0.0.1:{port}"))?);
    println!("listening on port {}", server.server_addr().to_ip().unwrap().port());
    let endpoint_id = env::var("ENDPOINT_ID").ok();
    let receiver = Arc::new(Receiver {
        issuer,
        audience,
        endpoint_id,
        keys,
        seen: Mutex::default(),
    });
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (server, receiver) = (Arc::clone(&server), Arc::clone(&receiver));
            thread::spawn(move || {
                while let Ok(request) = server.recv() {
                    receiver.answer(request);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("a worker panicked");
    }
    Ok(())
}
