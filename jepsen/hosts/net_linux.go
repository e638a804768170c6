package hosts

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// The range that is kept for benchmarks of network devices (RFC 2544): no
	// network uses it.
	rangeFirst, rangeSecond = 198, 18
	netsMax                 = 512 // two times 256 networks of 254 addresses
	harnessHost             = 1
	firstHost               = 11
	hostsMax                = 64
	devicePattern           = "onceqj%d" // the kernel puts in the number
	tunPath                 = "/dev/net/tun"
)

// Possible says why there can be no hosts here, nil if they can.
func Possible() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	f, err := os.OpenFile(tunPath, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("the kernel has no tun devices: %w", err)
	}
	return f.Close()
}

// Net is a number of hosts and what is between them.
type Net struct {
	fabric     *fabric
	addresses  []netip.Addr
	namespaces []*os.File
	home       *os.File // our own namespace
	once       sync.Once
}

// New makes n hosts.
func New(n int) (*Net, error) {
	if err := Possible(); err != nil {
		return nil, err
	}
	if n < 1 || n > hostsMax {
		return nil, fmt.Errorf("%d hosts: 1 to %d are accepted", n, hostsMax)
	}
	w := &Net{}
	ports, err := w.wire(n)
	if err != nil {
		for _, p := range ports {
			_ = p.device.Close()
		}
		w.release()
		return nil, err
	}
	w.fabric = newFabric(ports)
	return w, nil
}

// wire makes the devices and the namespaces.
func (w *Net) wire(n int) (ports []port, err error) {
	if w.home, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	// The thread of this goroutine is in our own namespace: only hosts' are not, and
	// those end.
	device, name, err := openTun(devicePattern)
	if err != nil {
		return nil, err
	}
	ports = append(ports, port{device: device})
	number := 0
	if _, err := fmt.Sscanf(name, devicePattern, &number); err != nil || number >= netsMax {
		return ports, fmt.Errorf("device %s: numbers up to %d have addresses; are there so many runs?", name, netsMax-1)
	}
	at := func(host int) netip.Addr {
		return netip.AddrFrom4([4]byte{rangeFirst, byte(rangeSecond + number/256), byte(number % 256), byte(host)})
	}
	ports[0].address = at(harnessHost)
	if err := up(name, ports[0].address); err != nil {
		return ports, err
	}
	for i := range n {
		address := at(firstHost + i)
		namespace, device, err := newHost(address)
		if err != nil {
			return ports, fmt.Errorf("host %d: %w", i+1, err)
		}
		w.namespaces = append(w.namespaces, namespace)
		w.addresses = append(w.addresses, address)
		ports = append(ports, port{address, device})
	}
	return ports, nil
}

// newHost makes a namespace with a device.
func newHost(address netip.Addr) (namespace *os.File, device io.ReadWriteCloser, err error) {
	done := make(chan struct{})
	go func() { // waited for
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread is of the new namespace, and ends
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("new network namespace: %w", err)
			return
		}
		if namespace, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return
		}
		var name string
		if device, name, err = openTun("eth%d"); err == nil {
			err = errors.Join(up("lo", netip.AddrFrom4([4]byte{127, 0, 0, 1})), up(name, address))
		}
	}()
	<-done
	if err != nil {
		if device != nil {
			_ = device.Close()
		}
		if namespace != nil {
			_ = namespace.Close()
		}
		return nil, nil, err
	}
	return namespace, device, nil
}

// openTun makes a device in the namespace of the thread.
func openTun(pattern string) (device *os.File, name string, err error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", fmt.Errorf("open %s: %w", tunPath, err)
	}
	r, err := unix.NewIfreq(pattern)
	if err == nil {
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, "", fmt.Errorf("new tun device: %w", err)
	}
	return os.NewFile(uintptr(fd), tunPath), r.Name(), nil
}

// up gives a device its address and switches it on.
func up(name string, address netip.Addr) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	set := func(what string, request uint, fill func(r *unix.Ifreq) error) {
		r, ierr := unix.NewIfreq(name)
		if ierr == nil {
			ierr = fill(r)
		}
		if ierr == nil {
			ierr = unix.IoctlIfreq(s, request, r)
		}
		if ierr != nil && err == nil {
			err = fmt.Errorf("%s of device %s: %w", what, name, ierr)
		}
	}
	if name != "lo" {
		b := address.As4()
		set("address", unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(b[:]) })
		set("mask", unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 0}) })
		set("size of packets", unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(mtu); return nil })
	}
	set("state", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil })
	return err
}

// Address is where host i is, from 0.
func (w *Net) Address(i int) netip.Addr { return w.addresses[i] }

// Inside calls f on a thread that is in the namespace of host i: what f starts or
// opens belongs to that host. The calling goroutine must be locked to its thread.
func (w *Net) Inside(i int, f func() error) error {
	if err := unix.Setns(int(w.namespaces[i].Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace of host %d: %w", i+1, err)
	}
	err := f()
	if back := unix.Setns(int(w.home.Fd()), unix.CLONE_NEWNET); back != nil {
		// Whatever this thread does next would happen elsewhere.
		panic(fmt.Sprintf("leave the network namespace of host %d: %v", i+1, back))
	}
	return err
}

// Listen listens on host i, port 0 for any.
func (w *Net) Listen(i int, tcpPort int) (net.Listener, error) {
	var l net.Listener
	done := make(chan error)
	go func() { // waited for
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- w.Inside(i, func() (err error) {
			l, err = net.Listen("tcp4", netip.AddrPortFrom(w.addresses[i], uint16(tcpPort)).String())
			return err
		})
	}()
	return l, <-done
}

// Set makes a rule for the packets from one host to another.
func (w *Net) Set(from, to int, r Rule) { w.fabric.set(from+1, to+1, r) }

// Count is what was done to the packets from one host to another since Heal.
func (w *Net) Count(from, to int) Count { return w.fabric.count(from+1, to+1) }

// Total is the sum of Count over all links between hosts.
func (w *Net) Total() Count {
	var sum Count
	for from := range w.addresses {
		for to := range w.addresses {
			sum.add(w.Count(from, to))
		}
	}
	return sum
}

// Heal takes back every rule and begins to count anew.
func (w *Net) Heal() { w.fabric.heal() }

// Close removes everything. No process may run in a host any more.
func (w *Net) Close() {
	w.once.Do(func() {
		w.fabric.close()
		w.release()
	})
}

func (w *Net) release() {
	for _, f := range append(w.namespaces, w.home) {
		if f != nil {
			_ = f.Close()
		}
	}
}
