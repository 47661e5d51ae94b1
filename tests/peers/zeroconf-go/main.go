// Go's zeroconf as a peer:
//
//	zeroconf-go browse <type>
//	zeroconf-go publish <name> <type> <port> <key>=<value>...
//
// It writes a line of JSON for each service that it finds. It does not tell what has left.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"

	"github.com/grandcat/zeroconf"
)

type event struct {
	Event     string   `json:"event"`
	Name      string   `json:"name"`
	Port      int      `json:"port"`
	Addresses []string `json:"addresses"`
	Txt       []string `json:"txt"`
}

func main() {
	switch os.Args[1] {
	case "browse":
		browse(os.Args[2])
	case "publish":
		port, err := strconv.Atoi(os.Args[4])
		if err != nil {
			log.Fatal(err)
		}
		if _, err := zeroconf.Register(os.Args[2], os.Args[3], "local.", port, os.Args[5:], nil); err != nil {
			log.Fatal(err)
		}
		fmt.Println(`{"event":"ready"}`)
		select {}
	}
}

func browse(serviceType string) {
	resolver, err := zeroconf.NewResolver()
	if err != nil {
		log.Fatal(err)
	}
	found := make(chan *zeroconf.ServiceEntry)
	if err := resolver.Browse(context.Background(), serviceType, "local.", found); err != nil {
		log.Fatal(err)
	}
	for entry := range found {
		e := event{Event: "added", Name: entry.Instance, Port: entry.Port, Txt: entry.Text}
		for _, ip := range append(entry.AddrIPv4, entry.AddrIPv6...) {
			e.Addresses = append(e.Addresses, ip.String())
		}
		line, err := json.Marshal(e)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(line))
	}
}
