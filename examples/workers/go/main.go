// A worker of Ringback: claims tasks of the type image.thumbnail, several at once, and scales the images in them.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/gif"
	"image/jpeg"
	_ "image/png"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	taskType    = "image.thumbnail"
	concurrency = 4
	waitSeconds = 30
	// A small file may contain an image that exhausts memory.
	mostPixels = 50_000_000
)

var (
	base = strings.TrimSuffix(env("WORKER_PLATFORM", "http://127.0.0.1:8484"), "/")
	key  = os.Getenv("WORKER_KEY")
)

func env(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

type task struct {
	ID    string `json:"id"`
	Try   int    `json:"try"`
	Input input  `json:"input"`
	Lease struct {
		Token   string  `json:"token"`
		Seconds float64 `json:"seconds"`
	} `json:"lease"`
}

type input struct {
	Image   string `json:"image"`
	Width   int    `json:"width"`
	Quality int    `json:"quality"`
}

type result struct {
	Image        string `json:"image"`
	Width        int    `json:"width"`
	Height       int    `json:"height"`
	SourceWidth  int    `json:"sourceWidth"`
	SourceHeight int    `json:"sourceHeight"`
}

// The members of a response that a worker uses.
type answer struct {
	Tasks           []task  `json:"tasks"`
	LeaseSeconds    float64 `json:"leaseSeconds"`
	CancelRequested bool    `json:"cancelRequested"`
	Status          any     `json:"status"`
	Code            string  `json:"code"`
	Detail          string  `json:"detail"`
}

// permanent is a failure that a retry cannot fix.
type permanent struct{ code, message string }

func (p permanent) Error() string { return p.message }

// One API call. Returns an error without a response.
func call(ctx context.Context, path string, body any) (int, answer, error) {
	var said answer
	text, err := json.Marshal(body)
	if err != nil {
		return 0, said, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, bytes.NewReader(text))
	if err != nil {
		return 0, said, err
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, said, err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, said, err
	}
	return response.StatusCode, said, json.Unmarshal(raw, &said)
}

// The work: a box filter, row by row, so that it can stop between two rows.
func thumbnail(ctx context.Context, in input, progress func(float64)) (*result, error) {
	raw, err := base64.StdEncoding.DecodeString(in.Image)
	if err != nil {
		return nil, permanent{"not_base64", err.Error()}
	}
	size, _, err := image.DecodeConfig(bytes.NewReader(raw))
	if err != nil {
		return nil, permanent{"not_an_image", err.Error()}
	}
	if size.Width*size.Height > mostPixels {
		return nil, permanent{"too_large", fmt.Sprintf("%d × %d pixels are more than %d.", size.Width, size.Height, mostPixels)}
	}
	source, _, err := image.Decode(bytes.NewReader(raw))
	if err != nil {
		return nil, permanent{"not_an_image", err.Error()}
	}
	from := source.Bounds()
	width := min(in.Width, from.Dx())
	height := max(1, from.Dy()*width/from.Dx())
	scaled := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		top, bottom := from.Min.Y+y*from.Dy()/height, from.Min.Y+(y+1)*from.Dy()/height
		for x := range width {
			left, right := from.Min.X+x*from.Dx()/width, from.Min.X+(x+1)*from.Dx()/width
			scaled.SetRGBA(x, y, average(source, image.Rect(left, top, right, bottom)))
		}
		progress(100 * float64(y+1) / float64(height))
	}
	var encoded bytes.Buffer
	quality := in.Quality
	if quality == 0 {
		quality = 85
	}
	if err := jpeg.Encode(&encoded, scaled, &jpeg.Options{Quality: quality}); err != nil {
		return nil, err
	}
	return &result{base64.StdEncoding.EncodeToString(encoded.Bytes()), width, height, from.Dx(), from.Dy()}, nil
}

// The mean color of an area, on white: JPEG has no transparency.
func average(source image.Image, area image.Rectangle) color.RGBA {
	var r, g, b, n uint64
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			red, green, blue, alpha := source.At(x, y).RGBA()
			rest := uint64(0xffff - alpha)
			r, g, b, n = r+uint64(red)+rest, g+uint64(green)+rest, b+uint64(blue)+rest, n+1
		}
	}
	return color.RGBA{uint8(r / n >> 8), uint8(g / n >> 8), uint8(b / n >> 8), 255}
}

// Runs one claimed task and reports its result, which ends its lease.
func run(stopping context.Context, t task) {
	fmt.Printf("claimed %s try %d\n", t.ID, t.Try)
	ctx, end := context.WithCancel(stopping)
	lease := time.Duration(t.Lease.Seconds * float64(time.Second))
	endsAt := time.Now().Add(lease)
	var mutex sync.Mutex
	reported := 0.0
	say := func(verb string, body map[string]any, timeout time.Duration) (int, answer, error) {
		limited, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		body["lease"] = t.Lease.Token
		return call(limited, "/v1/worker/tasks/"+t.ID+"/"+verb, body)
	}
	// Sends a heartbeat every third of the lease. A missing response means nothing; a refusal means that the lease is lost.
	beating, settled := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(beating)
		for {
			select {
			case <-settled:
				return
			case <-time.After(lease / 3):
			}
			mutex.Lock()
			report := map[string]any{"progress": reported}
			mutex.Unlock()
			began := time.Now()
			status, said, err := say("heartbeat", report, lease/3)
			if err != nil {
				continue
			}
			if status == http.StatusOK {
				endsAt = began.Add(time.Duration(said.LeaseSeconds * float64(time.Second)))
			}
			if said.CancelRequested || status >= 400 && status < 500 {
				end()
			}
		}
	}()
	done, err := thumbnail(ctx, t.Input, func(percent float64) {
		mutex.Lock()
		reported = percent
		mutex.Unlock()
	})
	end()
	close(settled)
	<-beating
	verb, body := "complete", map[string]any{"result": done}
	var hopeless permanent
	switch {
	case err == nil:
	case stopping.Err() != nil && errors.Is(err, context.Canceled):
		verb, body = "release", map[string]any{}
	case errors.As(err, &hopeless):
		verb, body = "fail", map[string]any{"error": map[string]any{"code": hopeless.code, "message": hopeless.message}, "retryable": false}
	default:
		verb, body = "fail", map[string]any{"error": map[string]any{"message": err.Error()}}
	}
	// Retries until there is a response: a repeated report under the same lease gets the same response.
	for delay := 500 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		status, said, err := say(verb, body, 20*time.Second)
		if err == nil && verb == "complete" && (status == http.StatusRequestEntityTooLarge || status == http.StatusUnprocessableEntity) {
			// Too large, or does not match the schema: a retry cannot fix that.
			verb, body = "fail", map[string]any{"error": map[string]any{"message": said.Detail}, "retryable": false}
			continue
		}
		if err == nil && status < 500 {
			fmt.Printf("ended %s %v %s\n", t.ID, said.Status, said.Code)
			return
		}
		if time.Now().After(endsAt) {
			fmt.Printf("ended %s not said in time\n", t.ID)
			return
		}
		time.Sleep(spread(delay))
	}
}

func spread(delay time.Duration) time.Duration { return delay/2 + rand.N(delay/2) }

func main() {
	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	slots := make(chan struct{}, concurrency)
	var running sync.WaitGroup
	fmt.Println("ready")
	for delay := 500 * time.Millisecond; stopping.Err() == nil; {
		// As many as there are free slots, at least one.
		slots <- struct{}{}
		<-slots
		asked := map[string]any{"types": []string{taskType}, "limit": concurrency - len(slots), "waitSeconds": waitSeconds}
		// After an aborted claim the platform keeps the tasks.
		status, said, err := call(stopping, "/v1/worker/claim", asked)
		switch {
		case err == nil && status == http.StatusOK:
			delay = 500 * time.Millisecond
			for _, claimed := range said.Tasks {
				slots <- struct{}{}
				running.Add(1)
				go func() {
					defer func() { <-slots; running.Done() }()
					run(stopping, claimed)
				}()
			}
		case err == nil && status < 500 && status != http.StatusTooManyRequests:
			fmt.Fprintf(os.Stderr, "The platform refuses claims with %d: %s\n", status, said.Detail)
			os.Exit(1)
		default:
			select {
			case <-stopping.Done():
			case <-time.After(spread(delay)):
			}
			delay = min(2*delay, 30*time.Second)
		}
	}
	running.Wait()
	fmt.Println("stopped")
}
