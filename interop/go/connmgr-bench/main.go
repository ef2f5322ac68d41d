// Command connmgr-bench measures go-libp2p's BasicConnMgr, unmodified, with the
// workloads that the benchmarks of libp2p-connmgr run against that crate.
//
// Each run is one measurement in a fresh process. It is chosen by the first
// argument, and its result is one JSON object on standard output:
//
//	tag         threads tag random peers out of those connected: ops, nanos
//	contention  upstream's BenchmarkLockContention: one task connects, tags,
//	            untags and disconnects while threads tag: ops, nanos
//	trim        one trim from -peers connections to half of them: nanos, closed
//	decay       one tick of three decaying tags on each of -peers: nanos
//	memory      what -peers connected, and then as many early tagged ones,
//	            take: bytes on the heap and resident, per peer
//	connect     one task connects and disconnects: ops, nanos
//
// Connections are stand-ins as in upstream's own tests: they know their peer,
// their direction and one stream, and tell the manager when they are closed.
// What a real connection adds is the same on both sides and not measured.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/benbjohnson/clock"
	coreconnmgr "github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	ma "github.com/multiformats/go-multiaddr"
)

// conn stands in for a connection.
type conn struct {
	network.Conn
	peer       peer.ID
	disconnect func(network.Network, network.Conn)
	closed     *atomic.Int64
}

var address = ma.StringCast("/ip4/127.0.0.1/udp/1234")

func (c *conn) RemotePeer() peer.ID           { return c.peer }
func (c *conn) RemoteMultiaddr() ma.Multiaddr { return address }
func (c *conn) Stat() network.ConnStats {
	return network.ConnStats{Stats: network.Stats{Direction: network.DirOutbound}, NumStreams: 1}
}
func (c *conn) Close() error { return c.CloseWithError(0) }
func (c *conn) CloseWithError(network.ConnErrorCode) error {
	c.closed.Add(1)
	c.disconnect(nil, c)
	return nil
}

// peers makes n ids of the form that Ed25519 keys have: the key itself, here
// random bytes, behind six bytes that say so.
func peers(n int) []peer.ID {
	random := rand.NewChaCha8([32]byte{1})
	ids := make([]peer.ID, n)
	for i := range ids {
		id := make([]byte, 38)
		copy(id, []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20})
		_, _ = random.Read(id[6:])
		ids[i] = peer.ID(id)
	}
	return ids
}

type bench struct {
	manager *connmgr.BasicConnMgr
	notifee network.Notifiee
	conns   []network.Conn
	closed  atomic.Int64
}

// newBench makes a manager and n connections that it does not know yet.
func newBench(n, low, high int, options ...connmgr.Option) *bench {
	options = append(options, connmgr.WithGracePeriod(0), connmgr.WithSilencePeriod(time.Hour))
	manager, err := connmgr.NewConnManager(low, high, options...)
	if err != nil {
		fail(err)
	}
	b := &bench{manager: manager, notifee: manager.Notifee(), conns: make([]network.Conn, n)}
	for i, id := range peers(n) {
		b.conns[i] = &conn{peer: id, disconnect: b.notifee.Disconnected, closed: &b.closed}
	}
	return b
}

func (b *bench) connectAll() {
	for _, c := range b.conns {
		b.notifee.Connected(nil, c)
	}
}

// taggers start threads that tag random peers until stop is called, which
// returns how many tags there were.
func (b *bench) taggers(threads int, tag string) (stop func() int64) {
	var done atomic.Bool
	var total atomic.Int64
	var group sync.WaitGroup
	for thread := range threads {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(thread), 7))
			var count int64
			for !done.Load() {
				for range 64 {
					c := b.conns[random.IntN(len(b.conns))].(*conn)
					b.manager.TagPeer(c.peer, tag, int(count&0xff))
					count++
				}
			}
			total.Add(count)
		})
	}
	return func() int64 {
		done.Store(true)
		group.Wait()
		return total.Load()
	}
}

func tag(n, threads int, length time.Duration) map[string]any {
	b := newBench(n, n, n+1)
	b.connectAll()
	start := time.Now()
	stop := b.taggers(threads, "score")
	time.Sleep(length)
	ops := stop()
	return map[string]any{"ops": ops, "nanos": time.Since(start).Nanoseconds()}
}

func contention(n, threads int, length time.Duration) map[string]any {
	b := newBench(n, 1000, 1000)
	stop := b.taggers(threads, "another-tag")
	random := rand.New(rand.NewPCG(99, 7))
	start := time.Now()
	ops := 0
	for time.Since(start) < length {
		for range 16 {
			c := b.conns[random.IntN(len(b.conns))].(*conn)
			b.notifee.Connected(nil, c)
			b.manager.TagPeer(c.peer, "tag", 100)
			b.manager.UntagPeer(c.peer, "tag")
			b.notifee.Disconnected(nil, c)
			ops++
		}
	}
	nanos := time.Since(start).Nanoseconds()
	stop()
	return map[string]any{"ops": ops, "nanos": nanos}
}

func trim(n, threads int) map[string]any {
	b := newBench(n, n/2, n/2)
	b.connectAll()
	random := rand.New(rand.NewPCG(3, 7))
	for _, c := range b.conns {
		b.manager.TagPeer(c.RemotePeer(), "value", random.IntN(101))
	}
	stop := func() int64 { return 0 }
	if threads > 0 {
		stop = b.taggers(threads, "busy")
	}
	runtime.GC()
	start := time.Now()
	b.manager.TrimOpenConns(context.Background())
	nanos := time.Since(start).Nanoseconds()
	stop()
	return map[string]any{"nanos": nanos, "closed": b.closed.Load()}
}

func decay(n int) map[string]any {
	mock := clock.NewMock()
	b := newBench(n, n, n+1, connmgr.WithClock(mock),
		connmgr.DecayerConfig(&connmgr.DecayerCfg{Resolution: time.Minute, Clock: mock}))
	b.connectAll()
	var ticks, bumps atomic.Int64
	expected := int64(3 * n)
	done := make(chan time.Time, 1)
	for t := range 3 {
		handle, err := b.manager.RegisterDecayingTag("tag"+strconv.Itoa(t), time.Minute,
			func(value coreconnmgr.DecayingValue) (int, bool) {
				if ticks.Add(1) == expected {
					done <- time.Now()
				}
				return value.Value - 1, false
			},
			func(_ coreconnmgr.DecayingValue, delta int) int {
				bumps.Add(1)
				return delta
			})
		if err != nil {
			fail(err)
		}
		for _, c := range b.conns {
			// The queue holds 128.
			for handle.Bump(c.RemotePeer(), 1000) != nil {
				runtime.Gosched()
			}
		}
	}
	for bumps.Load() < expected {
		time.Sleep(time.Millisecond)
	}
	runtime.GC()
	start := time.Now()
	mock.Add(time.Minute)
	end := <-done
	tick := end.Sub(start)
	start = time.Now()
	sum := 0
	for _, c := range b.conns {
		sum += b.manager.GetTagInfo(c.RemotePeer()).Value
	}
	read := time.Since(start)
	if sum != 3*999*n {
		fail(fmt.Errorf("the values sum up to %d", sum))
	}
	return map[string]any{"nanos": tick.Nanoseconds(), "read_nanos": read.Nanoseconds()}
}

func memory(n int) map[string]any {
	b := newBench(n, n, n+1)
	early := peers(2 * n)[n:]
	heap0, resident0 := usage()
	b.connectAll()
	heap1, resident1 := usage()
	for _, c := range b.conns {
		b.manager.TagPeer(c.RemotePeer(), "value", 7)
	}
	heap2, resident2 := usage()
	for _, id := range early {
		b.manager.TagPeer(id, "value", 7)
	}
	heap3, resident3 := usage()
	runtime.KeepAlive(b)
	runtime.KeepAlive(early)
	per := func(from, to uint64) float64 { return (float64(to) - float64(from)) / float64(n) }
	return map[string]any{
		"heap_connected": per(heap0, heap1), "resident_connected": per(resident0, resident1),
		"heap_tagged": per(heap0, heap2), "resident_tagged": per(resident0, resident2),
		"heap_early": per(heap2, heap3), "resident_early": per(resident2, resident3),
	}
}

// usage is what is on the heap and what is resident, all garbage gone.
func usage() (heap, resident uint64) {
	for range 2 {
		debug.FreeOSMemory()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		fail(err)
	}
	pages, err := strconv.ParseUint(string(bytes.Fields(text)[1]), 10, 64)
	if err != nil {
		fail(err)
	}
	return stats.HeapAlloc, pages * uint64(os.Getpagesize())
}

func connect(n int, length time.Duration) map[string]any {
	b := newBench(n, n, n+1)
	start := time.Now()
	ops := 0
	for time.Since(start) < length {
		for _, c := range b.conns {
			b.notifee.Connected(nil, c)
		}
		for _, c := range b.conns {
			b.notifee.Disconnected(nil, c)
		}
		ops += n
	}
	return map[string]any{"ops": ops, "nanos": time.Since(start).Nanoseconds()}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "connmgr-bench:", err)
	os.Exit(1)
}

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("which measurement? tag, contention, trim, decay, memory or connect"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	n := flags.Int("peers", 10_000, "how many peers")
	threads := flags.Int("threads", 0, "how many threads tag")
	length := flags.Duration("length", time.Second, "how long to measure")
	_ = flags.Parse(os.Args[2:])
	var result map[string]any
	switch os.Args[1] {
	case "tag":
		result = tag(*n, *threads, *length)
	case "contention":
		result = contention(*n, *threads, *length)
	case "trim":
		result = trim(*n, *threads)
	case "decay":
		result = decay(*n)
	case "memory":
		result = memory(*n)
	case "connect":
		result = connect(*n, *length)
	default:
		fail(fmt.Errorf("no measurement %q", os.Args[1]))
	}
	result["gomaxprocs"] = runtime.GOMAXPROCS(0)
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		fail(err)
	}
}
