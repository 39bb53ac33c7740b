// Resolves names by Go's own resolver, by UDP or, with -tcp, by TCP: an IPv4 address a line.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
)

func main() {
	names := os.Args[1:]
	resolver := &net.Resolver{PreferGo: true}
	if names[0] == "-tcp" {
		names = names[1:]
		resolver.Dial = func(ctx context.Context, _, server string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "tcp", server)
		}
	}
	for _, name := range names {
		found, err := resolver.LookupIP(context.Background(), "ip4", name)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(found[0])
	}
}
