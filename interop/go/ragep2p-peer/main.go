// Command ragep2p-peer runs one real ragep2p host, taken unmodified from libocr,
// as the other end of an interoperability test.
//
// It is configured by flags alone, reports what happens as one JSON object per
// line on standard output, and stops when standard input reaches end of file.
//
// # Key exchange
//
// ragep2p leaves the TLS curve list to the Go defaults, so the key exchange is
// chosen from outside, without touching any code:
//
//   - by default X25519MLKEM768 is offered first and X25519 after it;
//   - with GODEBUG=tlsmlkem=0 in the environment only the classical curves are
//     left. Go 1.26 still honours this setting.
//
// The go line of this module's go.mod is part of that default, because Go keeps
// the GODEBUG defaults of the language version it names: go 1.24 has
// X25519MLKEM768 (an older line would mean tlsmlkem=0) but not the hybrids over
// NIST curves, which are on from go 1.26. The environment overrides the go line
// either way, and the ready event says what this process really offers.
package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/smartcontractkit/libocr/commontypes"
	"github.com/smartcontractkit/libocr/networking/ragedisco"
	"github.com/smartcontractkit/libocr/networking/ragep2pwrapper"
	ocrtypes "github.com/smartcontractkit/libocr/offchainreporting2plus/types"
	"github.com/smartcontractkit/libocr/ragep2p"
	"github.com/smartcontractkit/libocr/ragep2p/ragep2pnew"
	"github.com/smartcontractkit/libocr/ragep2p/types"
)

const usage = "usage: ragep2p-peer -seed HEX32 [-listen HOST:PORT] [-peer PEERID]... " +
	"[-peer-addr PEERID=HOST:PORT]... [-stream NAME] [-send TEXT] [-stack v1|new] " +
	"[-oracle PEERID]... [-bootstrapper PEERID=HOST:PORT]... [-delta DURATION] [-ping BYTES]..."

const (
	// ragep2p uses this both as the pause between dial rounds and as the timeout
	// of one dial, so it must stay well above a loopback connect.
	durationBetweenDials = 200 * time.Millisecond

	sendInterval        = 200 * time.Millisecond
	metricsPollInterval = 50 * time.Millisecond

	// How often another free port is tried before giving up.
	listenAttempts = 5
)

// Stream parameters. The limits are far above anything a test sends: what is
// under test is the protocol, not the rate limiting.
const (
	bufferedMessages = 16
	maxMessageLength = 1 << 20
)

var (
	messagesLimit = types.TokenBucketParams{Rate: 1000, Capacity: 1000}
	bytesLimit    = types.TokenBucketParams{Rate: 16 << 20, Capacity: 16 << 20}
)

func main() {
	opts, err := parseOptions(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "ragep2p-peer: %v\n%s\n", err, usage)
		os.Exit(2)
	}
	if err := run(opts); err != nil {
		fmt.Fprintf(os.Stderr, "ragep2p-peer: %v\n", err)
		os.Exit(1)
	}
}

func run(opts *options) error {
	registry := prometheus.NewRegistry()
	host, listen, err := startHost(opts, registry)
	if err != nil {
		return err
	}
	events := &eventWriter{encoder: json.NewEncoder(os.Stdout)}
	if opts.ragedisco != nil {
		// The digest only tells groups apart. There is one here.
		if err := opts.ragedisco.AddGroup(ocrtypes.ConfigDigest{7}, opts.oracles, opts.bootstrappers); err != nil {
			return errors.Join(fmt.Errorf("add group: %w", err), host.Close())
		}
	}

	// ragep2p refuses a peer it has no stream with, so every stream is opened
	// before the ready event invites the other side to connect.
	var streams []ragep2pwrapper.Stream
	for _, peer := range opts.peers {
		stream, err := host.NewStream(peer, opts.stream, bufferedMessages, bufferedMessages,
			maxMessageLength, messagesLimit, bytesLimit)
		if err != nil {
			return errors.Join(fmt.Errorf("open stream to %s: %w", peer, err), host.Close())
		}
		streams = append(streams, stream)
	}

	events.write(readyEvent{"ready", host.ID(), listen, offersMLKEM()})

	go reportEstablished(registry, events)
	if len(opts.pings) > 0 {
		startPings(host, opts.pings, opts.peers, newLogger(), events)
	}
	for _, stream := range streams {
		go reportMessages(stream, events)
		if opts.send != "" {
			go sendRepeatedly(stream, []byte(opts.send))
		}
	}

	// The parent holds the other end of our standard input. However it dies, the
	// pipe closes, and this process never outlives the test that started it.
	_, _ = io.Copy(io.Discard, os.Stdin)
	return host.Close()
}

// ---------------------------------------------------------------------------
// Flags

type options struct {
	key       keyring
	listen    string
	peers     []types.PeerID
	addresses map[types.PeerID][]types.Address
	stream    string
	send      string
	stack     string

	// Sizes of pings; none means that latencies are not measured.
	pings []int

	// A group that finds itself by ragedisco; nobody in it means static addresses.
	oracles       []types.PeerID
	bootstrappers []types.PeerInfo
	delta         time.Duration
	// Of the host that runs.
	ragedisco *ragedisco.Ragep2pDiscoverer
}

func parseOptions(args []string) (*options, error) {
	opts := &options{addresses: map[types.PeerID][]types.Address{}}
	addPeer := func(text string) (types.PeerID, error) {
		var id types.PeerID
		if err := id.UnmarshalText([]byte(text)); err != nil {
			return id, err
		}
		if !slices.Contains(opts.peers, id) {
			opts.peers = append(opts.peers, id)
		}
		return id, nil
	}

	flags := flag.NewFlagSet("ragep2p-peer", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the error and the usage line
	flags.Func("seed", "Ed25519 seed, 64 hexadecimal digits", func(text string) error {
		seed, err := hex.DecodeString(text)
		if err != nil {
			return err
		}
		if len(seed) != ed25519.SeedSize {
			return fmt.Errorf("got %d bytes, want %d", len(seed), ed25519.SeedSize)
		}
		opts.key = keyring{ed25519.NewKeyFromSeed(seed)}
		return nil
	})
	flags.StringVar(&opts.listen, "listen", "127.0.0.1:0", "address to listen on; port 0 picks a free one")
	flags.Func("peer", "peer to open the stream to; repeatable", func(text string) error {
		_, err := addPeer(text)
		return err
	})
	flags.Func("peer-addr", "where to dial a peer, PEERID=HOST:PORT; implies -peer; repeatable", func(text string) error {
		peer, address, ok := strings.Cut(text, "=")
		if !ok {
			return errors.New("want PEERID=HOST:PORT")
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return err
		}
		id, err := addPeer(peer)
		if err != nil {
			return err
		}
		opts.addresses[id] = append(opts.addresses[id], types.Address(address))
		return nil
	})
	flags.Func("ping", "measure latencies by rageping with pings of so many bytes; repeatable", func(text string) error {
		size, err := strconv.Atoi(text)
		opts.pings = append(opts.pings, size)
		return err
	})
	flags.Func("oracle", "a member of the group that finds itself, this peer included; repeatable", func(text string) error {
		var id types.PeerID
		if err := id.UnmarshalText([]byte(text)); err != nil {
			return err
		}
		opts.oracles = append(opts.oracles, id)
		return nil
	})
	flags.Func("bootstrapper", "where the group begins, PEERID=HOST:PORT; repeatable", func(text string) error {
		peer, address, ok := strings.Cut(text, "=")
		if !ok {
			return errors.New("want PEERID=HOST:PORT")
		}
		var id types.PeerID
		if err := id.UnmarshalText([]byte(peer)); err != nil {
			return err
		}
		opts.bootstrappers = append(opts.bootstrappers, types.PeerInfo{ID: id, Addrs: []types.Address{types.Address(address)}})
		return nil
	})
	flags.DurationVar(&opts.delta, "delta", 200*time.Millisecond, "between two messages of ragedisco to one peer")
	flags.StringVar(&opts.stream, "stream", "knock-interop", "name of the stream opened to each peer")
	flags.StringVar(&opts.send, "send", "", "text sent on each stream every 200 ms")
	flags.StringVar(&opts.stack, "stack", "v1", "v1 (package ragep2p) or new (package ragep2pnew)")

	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case opts.key.secret == nil:
		return nil, errors.New("-seed is required")
	case opts.stack != "v1" && opts.stack != "new":
		return nil, fmt.Errorf("unknown -stack %q", opts.stack)
	case len(opts.stream) == 0 || len(opts.stream) > types.MaxStreamNameLength:
		return nil, fmt.Errorf("-stream must have 1 to %d bytes", types.MaxStreamNameLength)
	case len(opts.send) > maxMessageLength:
		return nil, fmt.Errorf("-send must have at most %d bytes", maxMessageLength)
	case slices.Contains(opts.peers, types.PeerIDFromKeyring(opts.key)):
		return nil, errors.New("-peer names this peer itself")
	}
	if _, _, err := net.SplitHostPort(opts.listen); err != nil {
		return nil, fmt.Errorf("-listen: %w", err)
	}
	if len(opts.oracles) > 0 && len(opts.addresses) > 0 {
		return nil, errors.New("-oracle and -peer-addr: it is ragedisco that finds addresses")
	}
	for _, id := range opts.oracles {
		if id != types.PeerIDFromKeyring(opts.key) && !slices.Contains(opts.peers, id) {
			opts.peers = append(opts.peers, id)
		}
	}
	return opts, nil
}

// ---------------------------------------------------------------------------
// The host

// startHost returns a running host and the address it listens on.
//
// ragep2p listens on exactly the address it is given and never tells which port
// the system chose, so a port of 0 is resolved here. Somebody else may take the
// port between our look and ragep2p's own listen; then another one is tried.
func startHost(opts *options, registry *prometheus.Registry) (ragep2pwrapper.Host, string, error) {
	attempts := listenAttempts
	if _, port, _ := net.SplitHostPort(opts.listen); port != "0" {
		attempts = 1
	}
	var lastErr error
	for range attempts {
		listen, err := freeAddress(opts.listen)
		if err != nil {
			lastErr = err
			continue
		}
		host, err := newHost(opts, listen, registry)
		if err != nil {
			return nil, "", err
		}
		// A host that fails to start closes itself and unregisters its metrics,
		// which leaves the registry fit for the next attempt.
		if err := host.Start(); err != nil {
			lastErr = err
			continue
		}
		return host, listen, nil
	}
	return nil, "", lastErr
}

// freeAddress turns port 0 into one that is free right now.
func freeAddress(address string) (string, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// newHost hides which of libocr's two stacks is used: libocr brings the common
// interface itself.
func newHost(opts *options, listen string, registry *prometheus.Registry) (ragep2pwrapper.Host, error) {
	log := newLogger()
	addresses := []string{listen}
	if len(opts.oracles) > 0 {
		// One serves one host, once.
		opts.ragedisco = ragedisco.NewRagep2pDiscoverer(opts.delta, addresses, nil, registry)
	}

	if opts.stack == "new" {
		var discoverer ragep2pnew.Discoverer = newStaticDiscoverer(ragep2pnew.Discoverer.Start, opts.addresses)
		if opts.ragedisco != nil {
			discoverer = opts.ragedisco
		}
		host, err := ragep2pnew.NewHost(
			ragep2pnew.HostConfig{DurationBetweenDials: durationBetweenDials}, opts.key, addresses,
			discoverer, log, registry)
		if err != nil {
			return nil, err
		}
		return ragep2pnew.Wrapped(host), nil
	}

	var discoverer ragep2p.Discoverer = newStaticDiscoverer(ragep2p.Discoverer.Start, opts.addresses)
	if opts.ragedisco != nil {
		discoverer = opts.ragedisco
	}
	host, err := ragep2p.NewHost(
		ragep2p.HostConfig{DurationBetweenDials: durationBetweenDials}, opts.key, addresses,
		discoverer, log, registry)
	if err != nil {
		return nil, err
	}
	return ragep2p.Wrapped(host), nil
}

// keyring is the in-memory Ed25519 key of the host.
type keyring struct {
	secret ed25519.PrivateKey
}

func (k keyring) Sign(message []byte) ([]byte, error) {
	return ed25519.Sign(k.secret, message), nil
}

func (k keyring) PublicKey() types.PeerPublicKey {
	return types.MustPeerPublicKeyFromGenericPublicKey(k.secret.Public())
}

// staticDiscoverer knows peer addresses from the command line. A peer without
// one is never dialled; its own connections are accepted all the same.
//
// L stands for the logger type in libocr's Discoverer interface. It lives in an
// internal package and so cannot be named here, but it can be inferred.
type staticDiscoverer[L any] struct {
	addresses map[types.PeerID][]types.Address
}

// newStaticDiscoverer infers L from the interface method that must be
// implemented; the method itself is not called.
func newStaticDiscoverer[D, L any](
	_ func(D, ragep2pwrapper.Host, types.PeerKeyring, L) error,
	addresses map[types.PeerID][]types.Address,
) staticDiscoverer[L] {
	return staticDiscoverer[L]{addresses}
}

func (staticDiscoverer[L]) Start(ragep2pwrapper.Host, types.PeerKeyring, L) error { return nil }

func (staticDiscoverer[L]) Close() error { return nil }

func (d staticDiscoverer[L]) FindPeer(peer types.PeerID) ([]types.Address, error) {
	return d.addresses[peer], nil
}

// ---------------------------------------------------------------------------
// Streams

func reportMessages(stream ragep2pwrapper.Stream, events *eventWriter) {
	for payload := range stream.ReceiveMessages() {
		events.write(messageEvent{"message", stream.Other(), stream.Name(), hex.EncodeToString(payload)})
	}
}

func sendRepeatedly(stream ragep2pwrapper.Stream, payload []byte) {
	for {
		// The stack may keep the slice after the call, so each call gets its own.
		stream.SendMessage(bytes.Clone(payload))
		time.Sleep(sendInterval)
	}
}

// ---------------------------------------------------------------------------
// Events

type readyEvent struct {
	Event    string       `json:"event"`
	PeerID   types.PeerID `json:"peer_id"`
	Listen   string       `json:"listen"`
	TLSMLKEM bool         `json:"tls_mlkem"`
}

type messageEvent struct {
	Event      string       `json:"event"`
	PeerID     types.PeerID `json:"peer_id"`
	Stream     string       `json:"stream"`
	PayloadHex string       `json:"payload_hex"`
}

type establishedEvent struct {
	Event     string `json:"event"`
	PeerID    string `json:"peer_id"`
	Direction string `json:"direction"`
	Count     int    `json:"count"`
}

// eventWriter writes one line per event, each with a single unbuffered write.
type eventWriter struct {
	mu      sync.Mutex
	encoder *json.Encoder
}

func (w *eventWriter) write(event any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.encoder.Encode(event); err != nil {
		fmt.Fprintf(os.Stderr, "ragep2p-peer: write event: %v\n", err)
	}
}

// offersMLKEM tells whether TLS connections of this process offer
// X25519MLKEM768. It looks at a real ClientHello rather than at the environment,
// because the environment is only one of the things that decide.
func offersMLKEM() bool {
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		defer client.Close()
		_ = tls.Client(client, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}).Handshake()
	}()

	offered := false
	_ = tls.Server(server, &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			offered = slices.Contains(hello.SupportedCurves, tls.X25519MLKEM768)
			return nil, errors.New("only the ClientHello is of interest")
		},
	}).Handshake()
	return offered
}

// ---------------------------------------------------------------------------
// Connections, seen through ragep2p's metrics

const (
	metricEstablished        = "ragep2p_peer_conn_established_total"
	metricEstablishedInbound = "ragep2p_peer_conn_established_inbound_total"
)

// connCounts are the connections with one peer since the start.
type connCounts struct {
	in, out int
}

// reportEstablished writes an event whenever a count rises. ragep2p has no
// callback for connections, but it counts them in its metrics.
func reportEstablished(registry *prometheus.Registry, events *eventWriter) {
	previous := map[string]connCounts{}
	reported := map[string]connCounts{}
	for range time.Tick(metricsPollInterval) {
		current, err := readCounts(registry)
		if err != nil {
			fmt.Fprintf(os.Stderr, "ragep2p-peer: read metrics: %v\n", err)
			continue
		}
		for peer, now := range current {
			// ragep2p raises the total before the inbound part. Read between
			// the two, an inbound connection looks like an outbound one for a
			// moment, so an outbound count must show up in two polls.
			now.out = min(now.out, previous[peer].out)

			last := reported[peer]
			if now.in > last.in {
				events.write(establishedEvent{"established", peer, "in", now.in})
				last.in = now.in
			}
			if now.out > last.out {
				events.write(establishedEvent{"established", peer, "out", now.out})
				last.out = now.out
			}
			reported[peer] = last
		}
		previous = current
	}
}

// readCounts returns the counts by the text form of the remote peer.
func readCounts(registry *prometheus.Registry) (map[string]connCounts, error) {
	families, err := registry.Gather()
	if err != nil {
		return nil, err
	}
	counts := map[string]connCounts{}
	for _, family := range families {
		name := family.GetName()
		if name != metricEstablished && name != metricEstablishedInbound {
			continue
		}
		for _, metric := range family.GetMetric() {
			value := int(metric.GetCounter().GetValue())
			for _, label := range metric.GetLabel() {
				if label.GetName() != "remote_peer_id" {
					continue
				}
				// Outbound is what the total has beyond the inbound part.
				c := counts[label.GetValue()]
				if name == metricEstablished {
					c.out += value
				} else {
					c.in += value
					c.out -= value
				}
				counts[label.GetValue()] = c
			}
		}
	}
	return counts, nil
}

// ---------------------------------------------------------------------------
// Logging

// logger passes ragep2p's log lines to standard error as JSON.
type logger struct {
	slog *slog.Logger
}

var _ commontypes.Logger = logger{}

func newLogger() logger {
	return logger{slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))}
}

// slog has no level above error.
const levelCritical = slog.LevelError + 4

// Trace is left out: ragep2p traces every dial round, several times a second,
// also when nothing happens.
func (logger) Trace(string, commontypes.LogFields) {}

func (l logger) Debug(msg string, fields commontypes.LogFields) { l.log(slog.LevelDebug, msg, fields) }
func (l logger) Info(msg string, fields commontypes.LogFields)  { l.log(slog.LevelInfo, msg, fields) }
func (l logger) Warn(msg string, fields commontypes.LogFields)  { l.log(slog.LevelWarn, msg, fields) }
func (l logger) Error(msg string, fields commontypes.LogFields) { l.log(slog.LevelError, msg, fields) }
func (l logger) Critical(msg string, fields commontypes.LogFields) {
	l.log(levelCritical, msg, fields)
}

func (l logger) log(level slog.Level, msg string, fields commontypes.LogFields) {
	attrs := make([]slog.Attr, 0, len(fields))
	for key, value := range fields {
		// Stream ids and addresses are readable as text only.
		if text, ok := value.(fmt.Stringer); ok {
			value = text.String()
		}
		attrs = append(attrs, slog.Any(key, value))
	}
	slices.SortFunc(attrs, func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
	l.slog.LogAttrs(context.Background(), level, msg, attrs...)
}
