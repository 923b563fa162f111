// A net/http server as everybody writes it: server [PORT], else $PORT, else 8000.
// What it does it tells, one line each, in the file $SAY.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

func say(to *os.File, event string) {
	if to != nil {
		to.WriteString(fmt.Sprintf("%s %d\n", event, os.Getpid()))
	}
}

func main() {
	var to *os.File
	if name := os.Getenv("SAY"); name != "" {
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o666)
		if err != nil {
			log.Fatal(err)
		}
		to = file
	}
	port := os.Getenv("PORT")
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	if port == "" {
		port = "8000"
	}
	slot := os.Getenv("WORKER_ID")
	if slot == "" {
		slot = "-"
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		say(to, "request")
		if r.URL.Path == "/slow" {
			time.Sleep(500 * time.Millisecond)
		}
		fmt.Fprintf(w, "PID %d SLOT %s\n", os.Getpid(), slot)
	})
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		log.Fatal(err)
	}
	say(to, "listening")
	log.Fatal(http.Serve(listener, nil))
}
