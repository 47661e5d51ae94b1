// A go-micro v2 peer, over etcd at the address that it is given, or over its own multicast DNS (mdns): one command on
// standard input, one line or more of output.
//
//	register <service> <id> <address> <version> <ttl in s>
//	deregister <service> <id> <address>
//	get <service>        "instance <id> <address> <version> <metadata>", then "end"
//	list                 "service <name>", then "end"
//	watch <service>      "event <action> <id>", from now on
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/micro/go-micro/v2/registry"
	"github.com/micro/go-micro/v2/registry/etcd"
)

func main() {
	r := registry.NewRegistry()
	if os.Args[1] != "mdns" {
		r = etcd.NewRegistry(registry.Addrs(os.Args[1]))
	}
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := obey(r, strings.Fields(lines.Text())); err != nil {
			fmt.Println("error", err)
		}
	}
}

func service(words []string) *registry.Service {
	s := &registry.Service{Name: words[1], Version: "latest"}
	s.Nodes = []*registry.Node{{Id: words[2], Address: words[3], Metadata: map[string]string{"protocol": "mucp", "by": "go-micro"}}}
	if len(words) > 4 {
		s.Version = words[4]
	}
	return s
}

func obey(r registry.Registry, words []string) error {
	switch words[0] {
	case "register":
		ttl, err := strconv.Atoi(words[5])
		if err != nil {
			return err
		}
		if err := r.Register(service(words), registry.RegisterTTL(time.Duration(ttl)*time.Second)); err != nil {
			return err
		}
		fmt.Println("registered", words[2])
	case "deregister":
		if err := r.Deregister(service(words)); err != nil {
			return err
		}
		fmt.Println("deregistered", words[2])
	case "get":
		found, err := r.GetService(words[1])
		if err != nil && err != registry.ErrNotFound {
			return err
		}
		for _, s := range found {
			for _, n := range s.Nodes {
				fmt.Println("instance", n.Id, n.Address, s.Version, n.Metadata)
			}
		}
		fmt.Println("end")
	case "list":
		found, err := r.ListServices()
		if err != nil {
			return err
		}
		for _, s := range found {
			fmt.Println("service", s.Name)
		}
		fmt.Println("end")
	case "watch":
		w, err := r.Watch(registry.WatchService(words[1]))
		if err != nil {
			return err
		}
		go func() {
			for {
				event, err := w.Next()
				if err != nil {
					return
				}
				for _, n := range event.Service.Nodes {
					fmt.Println("event", event.Action, n.Id)
				}
			}
		}()
		fmt.Println("watching", words[1])
	}
	return nil
}
