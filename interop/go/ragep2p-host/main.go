// Command ragep2p-host runs one real ragep2p host, taken unmodified from
// libocr, that does what it is told: it opens and closes streams, sends
// messages that both ends can make up, and says what arrived.
//
// Commands come as one JSON object per line on standard input, events go as one
// per line to standard output. It stops when standard input ends.
package main

import (
	"bufio"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smartcontractkit/libocr/commontypes"
	"github.com/smartcontractkit/libocr/networking/ragep2pwrapper"
	"github.com/smartcontractkit/libocr/ragep2p"
	"github.com/smartcontractkit/libocr/ragep2p/ragep2pnew"
	"github.com/smartcontractkit/libocr/ragep2p/types"
)

// Messages that a sink counts together.
const sinkEvery = 8

// Between two messages of a paced stream.
const paceEvery = 2 * time.Millisecond

// How often another free port is tried before giving up.
const listenAttempts = 5

func main() {
	seed := flag.String("seed", "", "Ed25519 seed, 64 hexadecimal digits")
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on; port 0 picks a free one")
	stack := flag.String("stack", "v1", "v1 (package ragep2p) or new (package ragep2pnew)")
	interval := flag.Duration("dial-interval", 200*time.Millisecond, "least time between dials to a peer")
	flag.Parse()
	if err := run(*seed, *listen, *stack, *interval); err != nil {
		fmt.Fprintf(os.Stderr, "ragep2p-host: %v\n", err)
		os.Exit(1)
	}
}

func run(seedHex, listen, stack string, interval time.Duration) error {
	seed, err := hex.DecodeString(seedHex)
	if err != nil || len(seed) != ed25519.SeedSize {
		return errors.New("-seed has 64 hexadecimal digits")
	}
	node := &node{
		registry: prometheus.NewRegistry(),
		key:      keyring{ed25519.NewKeyFromSeed(seed)},
		streams:  map[string]*stream{},
		addrs:    &addresses{known: map[types.PeerID][]types.Address{}},
		out:      json.NewEncoder(os.Stdout),
	}
	if err := node.start(listen, stack, interval); err != nil {
		return err
	}
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 1<<20)
	for input.Scan() {
		var cmd command
		if err := json.Unmarshal(input.Bytes(), &cmd); err != nil {
			return fmt.Errorf("command %q: %w", input.Text(), err)
		}
		if err := node.do(cmd); err != nil {
			node.event(event{Event: "error", Cmd: cmd.Cmd, Name: cmd.Name, Text: err.Error()})
		}
	}
	return node.host.Close()
}

// command is what can be asked for; which fields matter depends on Cmd.
type command struct {
	Cmd  string       `json:"cmd"`
	Peer types.PeerID `json:"peer"`
	Addr string       `json:"addr"`
	Name string       `json:"name"`

	// open, open2, limits
	Out       int     `json:"out"`
	In        int     `json:"in"`
	Max       int     `json:"max"`
	MsgRate   float64 `json:"msg_rate"`
	MsgCap    uint32  `json:"msg_cap"`
	BytesRate float64 `json:"bytes_rate"`
	BytesCap  uint32  `json:"bytes_cap"`
	Low       bool    `json:"low"`

	// send: messages From to From + Count of the made-up sequence
	From  uint64 `json:"from"`
	Count uint64 `json:"count"`
	Bits  uint64 `json:"bits"`

	// text, request
	Text   string `json:"text"`
	TTL    int    `json:"ttl_ms"`
	Policy int    `json:"policy"`

	// state: an event once so many messages have arrived
	Until uint64 `json:"until"`

	// blast: messages of Size bytes for so many milliseconds, at most Window of
	// them not yet counted by the sink at the other end
	Size   int    `json:"size"`
	Millis int    `json:"millis"`
	Window uint64 `json:"window"`

	// pace: a message of a byte every 2 ms, until nothing came back for Gap
	// milliseconds and then something did, or for Millis
	Gap int `json:"gap"`
}

type event struct {
	Event string `json:"event"`
	Cmd   string `json:"cmd,omitempty"`
	Name  string `json:"name,omitempty"`
	Text  string `json:"text,omitempty"`
	Hash  string `json:"hash,omitempty"`
	Count uint64 `json:"count"`

	PeerID  string             `json:"peer_id,omitempty"`
	Listen  string             `json:"listen,omitempty"`
	Metrics map[string]float64 `json:"metrics,omitempty"`

	Seconds float64 `json:"seconds,omitempty"`
	Memory  uint64  `json:"memory,omitempty"`
}

type node struct {
	registry *prometheus.Registry
	key      keyring
	addrs    *addresses
	host     ragep2pwrapper.Host
	newer    *ragep2pnew.Host
	streams  map[string]*stream

	outMu sync.Mutex
	out   *json.Encoder
}

func (n *node) event(e event) {
	n.outMu.Lock()
	defer n.outMu.Unlock()
	_ = n.out.Encode(e)
}

// start finds a free port itself, as ragep2p never tells which one it got.
func (n *node) start(listen, stack string, interval time.Duration) error {
	var last error
	for range listenAttempts {
		probe, err := net.Listen("tcp", listen)
		if err != nil {
			return err
		}
		address := probe.Addr().String()
		_ = probe.Close()
		if err := n.create(address, stack, interval); err != nil {
			return err
		}
		if last = n.host.Start(); last == nil {
			n.event(event{Event: "ready", PeerID: n.host.ID().String(), Listen: address})
			return nil
		}
	}
	return last
}

func (n *node) create(address, stack string, interval time.Duration) error {
	log := logger{}
	switch stack {
	case "new":
		host, err := ragep2pnew.NewHost(ragep2pnew.HostConfig{DurationBetweenDials: interval}, n.key,
			[]string{address}, newDiscoverer(ragep2pnew.Discoverer.Start, n.addrs), log, n.registry)
		if err != nil {
			return err
		}
		n.host, n.newer = ragep2pnew.Wrapped(host), host
	case "v1":
		host, err := ragep2p.NewHost(ragep2p.HostConfig{DurationBetweenDials: interval}, n.key,
			[]string{address}, newDiscoverer(ragep2p.Discoverer.Start, n.addrs), log, n.registry)
		if err != nil {
			return err
		}
		n.host = ragep2p.Wrapped(host)
	default:
		return fmt.Errorf("unknown stack %q", stack)
	}
	return nil
}

func (n *node) do(cmd command) error {
	switch cmd.Cmd {
	case "know":
		n.addrs.add(cmd.Peer, types.Address(cmd.Addr))
		return nil
	case "open":
		opened, err := n.host.NewStream(cmd.Peer, cmd.Name, cmd.Out, cmd.In, cmd.Max,
			types.TokenBucketParams{Rate: cmd.MsgRate, Capacity: cmd.MsgCap},
			types.TokenBucketParams{Rate: cmd.BytesRate, Capacity: cmd.BytesCap})
		if err != nil {
			return err
		}
		s := n.track(cmd.Name, opened.SendMessage, opened.Close)
		go func() {
			for payload := range opened.ReceiveMessages() {
				s.received(payload)
			}
		}()
	case "open2":
		if n.newer == nil {
			return errors.New("v1 has no such streams")
		}
		priority := ragep2pnew.StreamPriorityDefault
		if cmd.Low {
			priority = ragep2pnew.StreamPriorityLow
		}
		opened, err := n.newer.NewStream2(cmd.Peer, cmd.Name, priority, cmd.limits())
		if err != nil {
			return err
		}
		send := func(payload []byte) {
			opened.Send(ragep2pnew.OutboundBinaryMessagePlain{Payload: payload})
		}
		s := n.track(cmd.Name, send, opened.Close)
		s.second = opened
		go n.answer(s, opened)
	case "limits":
		s, err := n.stream(cmd.Name)
		if err != nil {
			return err
		}
		if err := s.second.UpdateLimits(cmd.limits()); err != nil {
			return err
		}
	case "send":
		s, err := n.stream(cmd.Name)
		if err != nil {
			return err
		}
		for at := cmd.From; at < cmd.From+cmd.Count; at++ {
			s.send(madeUp(cmd.Name, at, cmd.Bits))
		}
		return nil
	case "text":
		s, err := n.stream(cmd.Name)
		if err != nil {
			return err
		}
		s.send([]byte(cmd.Text))
		return nil
	case "request":
		s, err := n.stream(cmd.Name)
		if err != nil {
			return err
		}
		s.second.Send(ragep2pnew.OutboundBinaryMessageRequest{
			ResponsePolicy: &ragep2pnew.SingleUseSizedLimitedResponsePolicy{
				MaxSize:         cmd.Policy,
				ExpiryTimestamp: time.Now().Add(time.Duration(cmd.TTL) * time.Millisecond),
			},
			Payload: []byte(cmd.Text),
		})
		return nil
	case "state":
		s, err := n.stream(cmd.Name)
		if err != nil {
			return err
		}
		go n.report(s, cmd.Until)
		return nil
	case "sink":
		s, err := n.stream(cmd.Name)
		if err != nil {
			return err
		}
		s.sink.Store(true)
	case "blast":
		s, err := n.stream(cmd.Name)
		if err != nil {
			return err
		}
		go n.blast(s, cmd)
		return nil
	case "pace":
		s, err := n.stream(cmd.Name)
		if err != nil {
			return err
		}
		go n.pace(s, cmd)
		return nil
	case "usage":
		usage, err := usage()
		if err != nil {
			return err
		}
		n.event(usage)
		return nil
	case "close":
		s, err := n.stream(cmd.Name)
		if err != nil {
			return err
		}
		delete(n.streams, cmd.Name)
		if err := s.close(); err != nil {
			return err
		}
	case "metrics":
		metrics, err := n.metrics()
		if err != nil {
			return err
		}
		n.event(event{Event: "metrics", Metrics: metrics})
		return nil
	default:
		return fmt.Errorf("unknown command %q", cmd.Cmd)
	}
	n.event(event{Event: "done", Cmd: cmd.Cmd, Name: cmd.Name})
	return nil
}

func (c command) limits() ragep2pnew.Stream2Limits {
	return ragep2pnew.Stream2Limits{
		MaxOutgoingBufferedMessages: c.Out,
		MaxIncomingBufferedMessages: c.In,
		MaxMessageLength:            c.Max,
		MessagesLimit:               types.TokenBucketParams{Rate: c.MsgRate, Capacity: c.MsgCap},
		BytesLimit:                  types.TokenBucketParams{Rate: c.BytesRate, Capacity: c.BytesCap},
	}
}

// answer reports requests and responses, and answers a request with its own text
// behind "re: ".
func (n *node) answer(s *stream, opened ragep2pnew.Stream2) {
	for message := range opened.Receive() {
		switch message := message.(type) {
		case ragep2pnew.InboundBinaryMessagePlain:
			s.received(message.Payload)
		case ragep2pnew.InboundBinaryMessageRequest:
			n.event(event{Event: "request", Name: s.name, Text: string(message.Payload)})
			handle := message.RequestHandle
			opened.Send(handle.MakeResponse(append([]byte("re: "), message.Payload...)))
		case ragep2pnew.InboundBinaryMessageResponse:
			n.event(event{Event: "response", Name: s.name, Text: string(message.Payload)})
		}
	}
}

// report writes the state of the stream as soon as enough has arrived.
func (n *node) report(s *stream, until uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.count < until {
		s.more.Wait()
	}
	n.event(event{Event: "state", Name: s.name, Count: s.count, Hash: hex.EncodeToString(s.hash.Sum(nil)), Text: s.last})
}

func (n *node) metrics() (map[string]float64, error) {
	families, err := n.registry.Gather()
	if err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			values[family.GetName()] += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
		}
	}
	return values, nil
}

// blast measures how many messages a second arrive at the sink.
func (n *node) blast(s *stream, cmd command) {
	s.acked.Store(0)
	s.blasting.Store(true)
	begun := time.Now()
	limit := begun.Add(time.Duration(cmd.Millis) * time.Millisecond)
	// One for all: no stack writes to what it is given.
	payload := make([]byte, cmd.Size)
	var sent uint64
	for time.Now().Before(limit) {
		for sent < s.acked.Load()+cmd.Window {
			s.send(payload)
			sent++
		}
		select {
		case <-s.wake:
		case <-time.After(time.Second):
		}
	}
	done := event{Event: "blast", Name: s.name, Count: s.acked.Load(), Seconds: time.Since(begun).Seconds()}
	// What is still under way is not the next one's.
	time.Sleep(500 * time.Millisecond)
	s.blasting.Store(false)
	n.event(done)
}

// pace measures the longest time without an acknowledgement.
func (n *node) pace(s *stream, cmd command) {
	s.blasting.Store(true)
	limit := time.Now().Add(time.Duration(cmd.Millis) * time.Millisecond)
	last, longest := time.Now(), time.Duration(0)
	for time.Now().Before(limit) && longest < time.Duration(cmd.Gap)*time.Millisecond {
		s.send([]byte{0})
		select {
		case <-s.wake:
			longest = max(longest, time.Since(last))
			last = time.Now()
			time.Sleep(paceEvery)
		case <-time.After(paceEvery):
		}
	}
	s.blasting.Store(false)
	n.event(event{Event: "pace", Name: s.name, Seconds: longest.Seconds()})
}

// usage is what this process has used of the processor, and what it holds.
func usage() (event, error) {
	debug.FreeOSMemory()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return event{}, err
	}
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return event{}, err
	}
	var kib uint64
	for _, line := range strings.Split(string(text), "\n") {
		if _, err := fmt.Sscanf(line, "Rss: %d kB", &kib); err == nil {
			break
		}
	}
	cpu := time.Duration(used.Utime.Nano() + used.Stime.Nano())
	return event{Event: "usage", Seconds: cpu.Seconds(), Memory: kib << 10}, nil
}

// ---------------------------------------------------------------------------
// Streams

type stream struct {
	name   string
	send   func([]byte)
	close  func() error
	second ragep2pnew.Stream2

	// A sink says so after each that many messages.
	sink     atomic.Bool
	sunk     uint64
	blasting atomic.Bool
	acked    atomic.Uint64
	wake     chan struct{}

	mu    sync.Mutex
	more  *sync.Cond
	count uint64
	hash  hash.Hash
	last  string
}

func (n *node) track(name string, send func([]byte), close func() error) *stream {
	s := &stream{name: name, send: send, close: close, hash: sha256.New(), wake: make(chan struct{}, 1)}
	s.more = sync.NewCond(&s.mu)
	n.streams[name] = s
	return s
}

func (n *node) stream(name string) (*stream, error) {
	s, ok := n.streams[name]
	if !ok {
		return nil, fmt.Errorf("no stream %q", name)
	}
	return s, nil
}

// received hashes the length and the content of every message, in order.
func (s *stream) received(payload []byte) {
	if s.sink.Load() {
		s.sunk++
		if s.sunk%sinkEvery == 0 {
			s.send([]byte{sinkEvery})
		}
		return
	}
	if s.blasting.Load() {
		s.acked.Add(sinkEvery)
		select {
		case s.wake <- struct{}{}:
		default:
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(payload)))
	s.hash.Write(length[:])
	s.hash.Write(payload)
	s.last = ""
	if len(payload) < 64 {
		s.last = strings.ToValidUTF8(string(payload), "?")
	}
	s.count++
	s.more.Broadcast()
}

// madeUp is message number `at` of the stream: a length of 1 to 2^bits bytes,
// each power of two as likely as the next, and a content that follows from
// both. The other end computes the same.
func madeUp(name string, at, bits uint64) []byte {
	x := at*6364136223846793005 + 1442695040888963407 + uint64(len(name))
	for _, c := range []byte(name) {
		x = (x ^ uint64(c)) * 1099511628211
	}
	x ^= x >> 29
	most := uint64(1) << ((x >> 8) % (bits + 1))
	length := 1 + (x>>20)%most
	payload := make([]byte, length)
	for i := range payload {
		payload[i] = byte(uint64(i)*7 + x)
	}
	return payload
}

// ---------------------------------------------------------------------------
// What a host needs

type keyring struct{ secret ed25519.PrivateKey }

func (k keyring) Sign(message []byte) ([]byte, error) { return ed25519.Sign(k.secret, message), nil }

func (k keyring) PublicKey() types.PeerPublicKey {
	return types.MustPeerPublicKeyFromGenericPublicKey(k.secret.Public())
}

type addresses struct {
	mu    sync.Mutex
	known map[types.PeerID][]types.Address
}

func (a *addresses) add(peer types.PeerID, address types.Address) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known[peer] = []types.Address{address}
}

// discoverer knows what it was told. L is the logger type of libocr's interface,
// which lives in an internal package and can only be inferred.
type discoverer[L any] struct{ *addresses }

func newDiscoverer[D, L any](
	_ func(D, ragep2pwrapper.Host, types.PeerKeyring, L) error, a *addresses,
) discoverer[L] {
	return discoverer[L]{a}
}

func (discoverer[L]) Start(ragep2pwrapper.Host, types.PeerKeyring, L) error { return nil }

func (discoverer[L]) Close() error { return nil }

func (d discoverer[L]) FindPeer(peer types.PeerID) ([]types.Address, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known[peer], nil
}

// logger passes warnings and worse to standard error.
type logger struct{}

var _ commontypes.Logger = logger{}

func (logger) Trace(string, commontypes.LogFields) {}
func (logger) Debug(string, commontypes.LogFields) {}
func (logger) Info(string, commontypes.LogFields)  {}

func (logger) Warn(msg string, fields commontypes.LogFields)     { log("warn", msg, fields) }
func (logger) Error(msg string, fields commontypes.LogFields)    { log("error", msg, fields) }
func (logger) Critical(msg string, fields commontypes.LogFields) { log("critical", msg, fields) }

func log(level, msg string, fields commontypes.LogFields) {
	fmt.Fprintf(os.Stderr, "%s: %s %v\n", level, msg, fields)
}
