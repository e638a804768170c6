// Command faultfs mounts a faulty disk: see onceq/jepsen/faultfs for what it can do
// and for the commands that it takes on its socket. It prints "mounted" when the
// disk is there. It unmounts and ends on SIGINT and SIGTERM, and with --end-with-stdin
// when its standard input ends, which it does when whoever started it dies.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"onceq/jepsen/faultfs"
)

func main() {
	backing := flag.String("backing", "", "directory that keeps the disk's content")
	socket := flag.String("socket", "", "unix socket that takes commands")
	withStdin := flag.Bool("end-with-stdin", false, "end when standard input does")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: faultfs --backing DIR --socket PATH [--end-with-stdin] MOUNTPOINT")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 || *backing == "" || *socket == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*backing, *socket, flag.Arg(0), *withStdin); err != nil {
		fmt.Fprintln(os.Stderr, "faultfs:", err)
		os.Exit(1)
	}
}

func run(backing, socket, dir string, withStdin bool) error {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	s, err := faultfs.Mount(backing, dir)
	if err != nil {
		return err
	}
	c, err := s.Listen(socket)
	if err != nil {
		s.Close()
		return err
	}
	fmt.Println("mounted")
	if withStdin {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			end <- syscall.SIGTERM
		}()
	}
	<-end
	c.Close()
	return s.Close()
}
