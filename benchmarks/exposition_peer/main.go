// The peer of benchmarks/exposition.py: the same metrics in client_golang, scraped through its own
// HTTP handler without a network. It reads one word a line, "identity" or "gzip", and answers each
// with the wall and CPU nanoseconds, bytes and lines of a scrape, after touching a tenth of the
// counters, outside of the time that is measured.
//
// Built with Debian's packages golang-go and golang-github-prometheus-client-golang-dev:
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go build -o peer main.go
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

var defaultBuckets = []float64{
	.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10,
}

func cpu() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func main() {
	counters, _ := strconv.Atoi(os.Args[1])
	gauges, _ := strconv.Atoi(os.Args[2])
	histograms, _ := strconv.Atoi(os.Args[3])
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounterVec(
		prometheus.CounterOpts{Name: "shop_requests_total", Help: "Requests."},
		[]string{"method", "endpoint", "status"},
	)
	gauge := prometheus.NewGaugeVec(
		prometheus.GaugeOpts{Name: "shop_queue_depth", Help: "Items ready."}, []string{"queue"},
	)
	histogram := prometheus.NewHistogramVec(
		prometheus.HistogramOpts{
			Name: "shop_request_duration_seconds", Help: "Seconds.", Buckets: defaultBuckets,
		},
		[]string{"method", "endpoint"},
	)
	registry.MustRegister(counter, gauge, histogram)
	touched := make([]prometheus.Counter, counters)
	for i := range touched {
		touched[i] = counter.WithLabelValues("GET", fmt.Sprintf("/api/users/%d", i), "200")
		touched[i].Add(float64(rand.Intn(100000)))
	}
	for i := 0; i < gauges; i++ {
		gauge.WithLabelValues(fmt.Sprintf("queue-%d", i)).Set(rand.Float64())
	}
	for i := 0; i < histograms; i++ {
		one := histogram.WithLabelValues("GET", fmt.Sprintf("/api/users/%d", i))
		for j := 0; j < 5; j++ {
			one.Observe(rand.Float64() * 3)
		}
	}
	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		for i := 0; i < counters/10; i++ {
			touched[rand.Intn(counters)].Inc()
		}
		request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		request.Header.Set("Accept", "text/plain;version=0.0.4")
		request.Header.Set("Accept-Encoding", input.Text())
		answer := httptest.NewRecorder()
		used, begun := cpu(), time.Now()
		handler.ServeHTTP(answer, request)
		wall, spent := time.Since(begun), cpu()-used
		body := answer.Body.Bytes()
		fmt.Println(wall.Nanoseconds(), spent, len(body), bytes.Count(body, []byte("\n")))
	}
}
