// A receiver of Ringback's webhooks: verifies every signature, and prints a line for every new event.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	toleranceSeconds = 300
	mostBytes        = 1 << 20
	mostIDs          = 100_000
	keysMaxAge       = 10 * time.Minute
	keysCooldown     = 30 * time.Second
)

// refused means an invalid webhook: 401. Any other error means that it could not be verified: 503, and the sender retries.
type refused string

func (r refused) Error() string { return string(r) }

// keySet holds the issuer's ES256 keys: cached for 10 minutes, fetched again for an unknown kid, at most every 30 s.
type keySet struct {
	url string

	mu        sync.Mutex
	keys      map[string]*ecdsa.PublicKey
	fetchedAt time.Time
}

func (s *keySet) get(kid string) (*ecdsa.PublicKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := time.Since(s.fetchedAt)
	if _, known := s.keys[kid]; age > keysMaxAge || !known && age > keysCooldown {
		if err := s.fetch(); err != nil {
			return nil, fmt.Errorf("the keys at %s could not be fetched: %w", s.url, err)
		}
	}
	if key, known := s.keys[kid]; known {
		return key, nil
	}
	return nil, refused("unknown_key")
}

func (s *keySet) fetch() error {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get(s.url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	var set struct {
		Keys []struct{ Kid, Kty, Crv, Alg, X, Y string }
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, mostBytes)).Decode(&set); err != nil {
		return err
	}
	keys := make(map[string]*ecdsa.PublicKey)
	for _, it := range set.Keys {
		if it.Kty != "EC" || it.Crv != "P-256" || it.Alg != "" && it.Alg != "ES256" {
			continue
		}
		x, errX := base64url(it.X)
		y, errY := base64url(it.Y)
		if err := errors.Join(errX, errY); err != nil {
			return err
		}
		key := &ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int).SetBytes(x), Y: new(big.Int).SetBytes(y)}
		// Refuses a point outside the curve.
		if _, err := key.ECDH(); err != nil {
			return err
		}
		keys[it.Kid] = key
	}
	s.keys, s.fetchedAt = keys, time.Now()
	return nil
}

// seen stores the latest handled ids. A database would be better: insert … on conflict do nothing.
type seen struct {
	mu    sync.Mutex
	ids   map[string]struct{}
	order []string
}

func (s *seen) add(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.ids[id]; known {
		return false
	}
	if len(s.order) == mostIDs {
		delete(s.ids, s.order[0])
		s.order = s.order[1:]
	}
	s.ids[id] = struct{}{}
	s.order = append(s.order, id)
	return true
}

type event struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Data struct {
		ID         string `json:"id"`
		EndpointID string `json:"endpointId"`
		Challenge  string `json:"challenge"`
	} `json:"data"`
}

func base64url(text string) ([]byte, error) { return base64.RawURLEncoding.Strict().DecodeString(text) }

type receiver struct {
	issuer, audience, endpointID string
	keys                         *keySet
	seen                         *seen
}

// verify returns the event in body if its detached JWS is valid (RFC 7515, Appendix F).
func (r *receiver) verify(jws string, body []byte) (*event, error) {
	if jws == "" {
		return nil, refused("missing_header")
	}
	parts := strings.Split(jws, ".")
	if len(parts) != 3 || parts[0] == "" || parts[1] != "" || parts[2] == "" {
		return nil, refused("malformed")
	}
	head, errHead := base64url(parts[0])
	signature, errSignature := base64url(parts[2])
	var header map[string]any
	if errHead != nil || errSignature != nil || json.Unmarshal(head, &header) != nil {
		return nil, refused("malformed")
	}
	// Members that would let the sender choose the key or how the payload is read. Ringback never sends them.
	for _, name := range []string{"crit", "b64", "jwk", "jku", "x5u", "x5c"} {
		if _, there := header[name]; there {
			return nil, refused("malformed")
		}
	}
	if header["alg"] != "ES256" || len(signature) != 64 {
		return nil, refused("bad_signature")
	}
	kid, ok := header["kid"].(string)
	if !ok {
		return nil, refused("malformed")
	}
	key, err := r.keys.get(kid)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256([]byte(parts[0] + "." + base64.RawURLEncoding.EncodeToString(body)))
	if !ecdsa.Verify(key, hash[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		return nil, refused("bad_signature")
	}
	if header["typ"] != "webhook+jws" {
		return nil, refused("wrong_type")
	}
	if header["iss"] != r.issuer {
		return nil, refused("wrong_issuer")
	}
	if header["aud"] != r.audience {
		return nil, refused("wrong_audience")
	}
	iat, ok := header["iat"].(float64)
	if !ok || math.Abs(float64(time.Now().UnixMilli())/1000-iat) > toleranceSeconds {
		return nil, refused("stale")
	}
	// Data that is not a task's is not an error: later versions may add events.
	var it event
	var mismatch *json.UnmarshalTypeError
	if err := json.Unmarshal(body, &it); err != nil && !errors.As(err, &mismatch) {
		return nil, refused("malformed")
	}
	if it.Type == "" || it.ID == "" || header["jti"] != it.ID {
		return nil, refused("malformed")
	}
	return &it, nil
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, mostBytes))
	if err != nil {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	it, err := r.verify(request.Header.Get("Webhook-Jws"), body)
	var no refused
	switch {
	case errors.As(err, &no):
		answer(w, http.StatusUnauthorized, map[string]any{"title": no, "status": http.StatusUnauthorized})
	case err != nil:
		log.Print("not judged: ", err)
		w.WriteHeader(http.StatusServiceUnavailable)
	case it.Type == "endpoint.verification" && r.endpointID != "" && r.endpointID != it.Data.EndpointID:
		w.WriteHeader(http.StatusForbidden)
	case it.Type == "endpoint.verification":
		answer(w, http.StatusOK, map[string]any{"challenge": it.Data.Challenge})
	default:
		if r.seen.add(it.ID) {
			// Your work: store the event here, then answer. If that fails, remove the id and answer 500.
			fmt.Println(it.ID, it.Type, it.Data.ID)
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func answer(w http.ResponseWriter, status int, document map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The sender may have closed the connection.
	_ = json.NewEncoder(w).Encode(document)
}

func main() {
	issuer, audience := os.Getenv("ISSUER"), os.Getenv("AUDIENCE")
	if issuer == "" || audience == "" {
		log.Fatal("set ISSUER, the public URL of the Ringback that calls you, and AUDIENCE, your endpoint's URL as registered")
	}
	jwksURL := os.Getenv("JWKS_URL")
	if jwksURL == "" {
		jwksURL = strings.TrimSuffix(issuer, "/") + "/.well-known/jwks.json"
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "9000"
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on port", listener.Addr().(*net.TCPAddr).Port)
	server := http.Server{
		Handler: &receiver{
			issuer:     issuer,
			audience:   audience,
			endpointID: os.Getenv("ENDPOINT_ID"),
			keys:       &keySet{url: jwksURL},
			seen:       &seen{ids: make(map[string]struct{})},
		},
		ReadTimeout:  15 * time.Second,
		WriteTimeout: 15 * time.Second,
	}
	log.Fatal(server.Serve(listener))
}
