// Go's own net/http server:  go run main.go PORT
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// CLOCK_MONOTONIC in ns, which Go's own clock doesn't tell.
func monotonic() int64 {
	var now syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano()
}

func begin(w http.ResponseWriter) http.Flusher {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	return w.(http.Flusher)
}

func number(r *http.Request, name string, otherwise float64) float64 {
	if value, err := strconv.ParseFloat(r.URL.Query().Get(name), 64); err == nil {
		return value
	}
	return otherwise
}

func bench(w http.ResponseWriter, r *http.Request) {
	events, interval, burst := int(number(r, "events", 1000)), number(r, "interval", 0), int(number(r, "burst", 1))
	pad := strings.Repeat("x", max(0, int(number(r, "size", 190))-50))
	flusher, start := begin(w), time.Now()
	for n := 0; n < events; n++ {
		if interval > 0 && n > 0 && n%burst == 0 {
			due := start.Add(time.Duration(float64(n/burst) * interval * 1e9))
			select {
			case <-time.After(time.Until(due)):
			case <-r.Context().Done():
				return
			}
		}
		fmt.Fprintf(w, "id: %d\ndata: {\"n\":%d,\"t\":%d,\"pad\":\"%s\"}\n\n", n+1, n, monotonic(), pad)
		flusher.Flush()
	}
	io.WriteString(w, "data: [DONE]\n\n")
}

var lock sync.Mutex
var watchers = map[chan []byte]<-chan struct{}{}

func watch(w http.ResponseWriter, r *http.Request) {
	events := make(chan []byte, 16)
	lock.Lock()
	watchers[events] = r.Context().Done()
	lock.Unlock()
	defer func() {
		lock.Lock()
		delete(watchers, events)
		lock.Unlock()
	}()
	flusher := begin(w)
	io.WriteString(w, ":\n\n")
	flusher.Flush()
	for {
		select {
		case event := <-events:
			w.Write(event)
			flusher.Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func publish(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	event := []byte("data: " + string(body) + "\n\n")
	lock.Lock()
	defer lock.Unlock()
	for events, gone := range watchers {
		select {
		case events <- event:
		case <-gone:
		}
	}
}

func max(a, b int) int {
	if a > b {
		return a
	}
	return b
}

func main() {
	http.HandleFunc("/bench", bench)
	http.HandleFunc("/watch", watch)
	http.HandleFunc("/publish", publish)
	if err := http.ListenAndServe("127.0.0.1:"+os.Args[1], nil); err != nil {
		panic(err)
	}
}
