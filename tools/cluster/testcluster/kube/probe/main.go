// probe is a container for tests of a cluster: it serves HTTP on :8080 and tells what it sees.
//
//	/            its host name, which is the pod's name
//	/resolve?name=N   the addresses the pod's resolver has for N, or 502 and why there are none
//	/fetch?url=U      what U answers to it, or 502 and why it does not
//	/healthz     "ok"
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	host, _ := os.Hostname()
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, host) })
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	http.HandleFunc("/resolve", resolve)
	http.HandleFunc("/fetch", fetch)
	fmt.Println("probe serves on :8080 as", host)
	go func() {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(":8080", nil))
		os.Exit(1)
	}()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM) // process 1 has no defaults for them
	<-ended
}

func resolve(w http.ResponseWriter, r *http.Request) {
	addresses, err := net.DefaultResolver.LookupHost(r.Context(), r.URL.Query().Get("name"))
	answer(w, strings.Join(addresses, " "), err)
}

func fetch(w http.ResponseWriter, r *http.Request) {
	client := http.Client{Timeout: 5 * time.Second}
	reply, err := client.Get(r.URL.Query().Get("url"))
	if err != nil {
		answer(w, "", err)
		return
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	answer(w, string(body), err)
}

func answer(w http.ResponseWriter, text string, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	fmt.Fprint(w, text)
}
