package hosts

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waitMax bounds "it happens".
const waitMax = 60 * time.Second

func newNet(t *testing.T, n int) *Net {
	t.Helper()
	if err := Possible(); err != nil {
		t.Skip(err)
	}
	w, err := New(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

const echoPort = 7450

// echo sends back what comes, on host i, until the test ends.
func echo(t *testing.T, w *Net, i int) string {
	t.Helper()
	l, err := w.Listen(i, echoPort)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	conns := make(chan net.Conn, 100)
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
			go func() { _, _ = io.Copy(c, c) }() // ends with the connection
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
		close(conns)
		for c := range conns {
			c.Close()
		}
	})
	return l.Addr().String()
}

// dial dials from host i, -1 for the harness. A host's dial has its own
// namespace only while the socket is made, so it cannot be given up halfway.
func dial(t *testing.T, w *Net, i int, address string, patience time.Duration) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if i < 0 {
		return (&net.Dialer{}).DialContext(ctx, "tcp4", address)
	}
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var r result
		err := w.Inside(i, func() error {
			// A literal address, so that the dialer starts no other goroutine before the
			// socket is there.
			r.c, r.err = net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address)))
			return nil
		})
		r.err = errors.Join(r.err, err)
		done <- r
	}()
	r := <-done
	return r.c, r.err
}

// exchange sends data and reads it back.
func exchange(c net.Conn, data []byte) ([]byte, error) {
	_ = c.SetDeadline(time.Now().Add(waitMax))
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- err
	}()
	got := make([]byte, len(data))
	_, err := io.ReadFull(c, got)
	return got, errors.Join(err, <-sent)
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func TestNet_HostsReachEachOtherAndTheHarnessReachesThem(t *testing.T) {
	t.Parallel()
	w := newNet(t, 3)
	addresses := []string{echo(t, w, 0), echo(t, w, 1), echo(t, w, 2)}
	for from := -1; from < 3; from++ {
		for _, a := range addresses {
			c, err := dial(t, w, from, a, waitMax)
			if err != nil {
				t.Fatalf("host %d to %s: %v", from, a, err)
			}
			data := noise(100_000)
			if got, err := exchange(c, data); err != nil || !bytes.Equal(got, data) {
				t.Errorf("host %d to %s: %v, other bytes: %v", from, a, err, !bytes.Equal(got, data))
			}
			c.Close()
		}
	}
}

func TestNet_ACutIsDirectedAndHeals(t *testing.T) {
	t.Parallel()
	w := newNet(t, 2)
	address := echo(t, w, 1)
	c, err := dial(t, w, 0, address, waitMax)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := exchange(c, []byte("before")); err != nil {
		t.Fatal(err)
	}
	// What host 1 sends does not arrive; what host 0 sends does.
	w.Set(1, 0, Rule{Cut: true})
	answered := make(chan error, 1)
	go func() {
		_, err := exchange(c, []byte("during"))
		answered <- err
	}()
	deadline := time.Now().Add(waitMax)
	for w.Count(1, 0).Lost == 0 || w.Count(0, 1).Passed == 0 {
		if time.Now().After(deadline) {
			t.Fatalf("1 to 0: %+v, 0 to 1: %+v", w.Count(1, 0), w.Count(0, 1))
		}
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-answered:
		t.Fatalf("an answer came over a cut link: %v", err)
	default:
	}
	// The harness is on other links.
	h, err := dial(t, w, -1, address, waitMax)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := exchange(h, []byte("harness")); err != nil {
		t.Fatal(err)
	}
	w.Heal()
	if err := <-answered; err != nil {
		t.Fatalf("after healing: %v", err)
	}
	if n := w.Count(1, 0).Lost; n != 0 {
		t.Errorf("%d packets lost after healing", n)
	}
}

func TestNet_LossDelayAndRepetitionLoseNoByteOfAConnection(t *testing.T) {
	t.Parallel()
	w := newNet(t, 2)
	address := echo(t, w, 1)
	r := Rule{Loss: 50, Duplicate: 100, Delay: time.Millisecond, Jitter: 3 * time.Millisecond}
	w.Set(0, 1, r)
	w.Set(1, 0, r)
	c, err := dial(t, w, 0, address, waitMax)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data := noise(1 << 20)
	got, err := exchange(c, data)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%v, other bytes: %v", err, !bytes.Equal(got, data))
	}
	if n := w.Total(); n.Lost == 0 || n.Repeated == 0 || n.Late == 0 {
		t.Errorf("the links did %+v", n)
	}
}

func TestNet_CorruptBytesReachTheApplication(t *testing.T) {
	t.Parallel()
	w := newNet(t, 2)
	address := echo(t, w, 1)
	w.Set(0, 1, Rule{Corrupt: 1000})
	c, err := dial(t, w, 0, address, waitMax)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data := make([]byte, 100)
	got, err := exchange(c, data)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, data) || w.Count(0, 1).Changed == 0 {
		t.Errorf("nothing was changed: %x, %+v", got, w.Count(0, 1))
	}
}

func TestNew_RunsSideBySideHaveTheirOwnAddressesAndLeaveNothing(t *testing.T) {
	w := newNet(t, 1)
	other := newNet(t, 1)
	if w.Address(0) == other.Address(0) {
		t.Errorf("both have %v", w.Address(0))
	}
	home := w.fabric.ports[0].address
	if !slices.Contains(ours(t), home) {
		t.Errorf("%v is not among our addresses", home)
	}
	w.Close()
	w.Close()
	if slices.Contains(ours(t), home) {
		t.Errorf("%v is left behind", home)
	}
	if _, err := New(0); err == nil {
		t.Error("no hosts are accepted")
	}
	if _, err := New(hostsMax + 1); err == nil {
		t.Error("too many hosts are accepted")
	}
}

func ours(t *testing.T) (all []netip.Addr) {
	t.Helper()
	found, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range found {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, p.Addr())
		}
	}
	return all
}
