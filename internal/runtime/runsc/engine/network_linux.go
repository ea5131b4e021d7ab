package engine

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/config"

	"github.com/cove-sandbox/cove/internal/runtime/runsc/launch"
)

const (
	ethPAll     = 0x0003
	packetQueue = 4 << 20 // bytes; the kernel's default drops frames under load
	gsoMax      = 64 << 10
)

// networkArgs describes the sandbox's links to the engine, with the packet
// socket they run on.
func networkArgs(n *launch.Network) (*boot.CreateLinksAndRoutesArgs, error) {
	args := &boot.CreateLinksAndRoutesArgs{LoopbackLinks: []boot.LoopbackLink{boot.DefaultLoopbackLink}}
	if n == nil {
		return args, nil
	}
	socket, mac, err := packetSocket(n.NetNS, n.Interface)
	if err != nil {
		return nil, err
	}
	gateway := net.IP(n.Gateway.AsSlice())
	prefix := n.Address.Masked()
	args.FilePayload.Files = []*os.File{socket}
	args.FDBasedLinks = []boot.FDBasedLink{{
		Name:        n.Interface,
		LinkAddress: mac,
		MTU:         n.MTU,
		NumChannels: 1,
		GSOMaxSize:  gsoMax,
		GVisorGRO:   true,
		// The host's stack has checked what it forwards; what the sandbox
		// sends must carry a checksum, for the host forwards it as it is.
		RXChecksumOffload: true,
		QDisc:             config.QDiscFIFO,
		Addresses:         []boot.IPWithPrefix{{Address: n.Address.Addr().AsSlice(), PrefixLen: n.Address.Bits()}},
		Routes: []boot.Route{{Destination: net.IPNet{
			IP:   prefix.Addr().AsSlice(),
			Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
		}}},
	}}
	args.Defaultv4Gateway = boot.DefaultRoute{
		Name:  n.Interface,
		Route: boot.Route{Destination: net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Gateway: gateway},
	}
	return args, nil
}

// packetSocket opens a raw socket on an interface of another network namespace.
// The socket stays bound to it after the thread has returned.
func packetSocket(netns, name string) (*os.File, net.HardwareAddr, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, nil, err
	}
	defer home.Close()
	target, err := os.Open(netns)
	if err != nil {
		return nil, nil, err
	}
	defer target.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, nil, fmt.Errorf("entering the slot: %w", err)
	}
	f, mac, err := openPacketSocket(name)
	if rerr := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); rerr != nil && err == nil {
		err = fmt.Errorf("leaving the slot: %w", rerr)
	}
	return f, mac, err
}

func openPacketSocket(name string) (*os.File, net.HardwareAddr, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return nil, nil, err
	}
	// Protocol 0 first: a socket that receives nothing binds without waiting
	// for a grace period.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("packet socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "packet")
	for _, opt := range []struct{ level, name, value int }{
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, packetQueue},
		{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, packetQueue},
	} {
		if err := unix.SetsockoptInt(fd, opt.level, opt.name, opt.value); err != nil {
			f.Close()
			return nil, nil, fmt.Errorf("packet socket option %d: %w", opt.name, err)
		}
	}
	addr := &unix.SockaddrLinklayer{Protocol: ethPAll << 8, Ifindex: iface.Index}
	if err := unix.Bind(fd, addr); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("binding to %s: %w", name, err)
	}
	return f, iface.HardwareAddr, nil
}
