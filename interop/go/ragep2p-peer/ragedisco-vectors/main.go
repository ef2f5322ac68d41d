// Command ragedisco-vectors prints what the real ragedisco (libocr, unmodified)
// sends and what it takes, as JSON.
//
// Each discoverer of libocr runs on a host of ours that has no network: what it
// sends is recorded, and what it shall receive is handed to it.
//
//	go run ./ragedisco-vectors > ../../../host/tests/vectors/ragedisco.json
package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/smartcontractkit/libocr/commontypes"
	"github.com/smartcontractkit/libocr/networking/ragedisco"
	"github.com/smartcontractkit/libocr/networking/ragedisco/serialization"
	"github.com/smartcontractkit/libocr/networking/ragep2pwrapper"
	ocrtypes "github.com/smartcontractkit/libocr/offchainreporting2plus/types"
	"github.com/smartcontractkit/libocr/ragep2p/types"
)

const patience = 10 * time.Second

func main() {
	var out struct {
		Sent  []sent  `json:"sent"`
		Taken []taken `json:"taken"`
	}
	out.Sent = allSent()
	for _, c := range cases() {
		out.Taken = append(out.Taken, taken{c.name, hex.EncodeToString(c.message), take(c.message)})
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	must(encoder.Encode(out))
}

// ---------------------------------------------------------------------------
// What it sends

type sent struct {
	Seed      byte     `json:"seed"`
	Addresses []string `json:"addresses"`
	Counter   uint64   `json:"counter"`
	// Of the only member beside the sender.
	Message string `json:"message"`
	Kind    string `json:"kind"`
}

// allSent lets a node announce itself, then restart with other addresses and
// without its database, and hear of its former self: each time with a counter
// one higher.
func allSent() []sent {
	var all []sent
	lives := [][]string{
		{"127.0.0.1:6690", "[::1]:6690"},
		{"198.51.100.7:6690"},
		{"127.0.0.1:6690", "[2001:db8::7]:65535", "10.0.0.1:1"},
		{"192.0.2.1:1", "192.0.2.2:2", "192.0.2.3:3", "192.0.2.4:4", "192.0.2.5:5",
			"192.0.2.6:6", "192.0.2.7:7", "192.0.2.8:8", "192.0.2.9:9", "[::ffff:192.0.2.10]:10"},
	}
	var former []byte
	for counter, addresses := range lives {
		node := start(1, addresses, []types.PeerID{id(1), id(2)})
		message := node.next()
		all = append(all, sent{1, addresses, 0, hex.EncodeToString(message), "reconcile"})
		if former != nil {
			node.incoming <- former
			for {
				message = node.next()
				if field(message) == 2 {
					break
				}
			}
			all = append(all, sent{1, addresses, uint64(counter), hex.EncodeToString(message), "announcement"})
		}
		former = message
		node.close()
	}
	return all
}

// field is the number of the first protobuf field.
func field(message []byte) int { return int(message[0] >> 3) }

// ---------------------------------------------------------------------------
// What it takes

type taken struct {
	Name    string `json:"name"`
	Message string `json:"message"`
	// Whether the receiver (seed 2) then knows where the peer of seed 1 is.
	// Oracles are the seeds 1, 2 and 3.
	Learned bool `json:"learned"`
}

type testCase struct {
	name    string
	message []byte
}

func cases() []testCase {
	var all []testCase
	add := func(name string, message []byte) { all = append(all, testCase{name, message}) }

	for _, address := range []string{
		"192.0.2.7:6690", "192.0.2.7:0", "192.0.2.7:65535", "192.0.2.7:65536", "192.0.2.7:06690", "192.0.2.7:+1",
		"192.0.2.7:", "192.0.2.7", ":6690", "192.0.2.07:6690", "192.0.2.256:6690", "192.0.2:6690", "0.0.0.0:1",
		"255.255.255.255:1", "localhost:6690", "example.com:6690", "", " 192.0.2.7:6690", "192.0.2.7:6690 ",
		"[192.0.2.7]:6690", "[::1]:6690", "::1:6690", "[::1]", "[::1]6690", "[::1%1]:6690", "[fe80::1%eth0]:6690",
		"[::]:1", "[2001:DB8::7]:1", "[2001:db8:0:0:0:0:0:7]:1", "[2001:db8::00007]:1", "[1:2:3:4:5:6:7::]:1",
		"[1:2:3:4:5:6:7:8::]:1", "[1:2:3:4::5:6:7:8]:1", "[1::2::3]:1", "[::ffff:192.0.2.7]:1", "[::192.0.2.7]:1",
		"[0000:0000:0000:0000:0000:ffff:255.255.255.255]:65535", "[0000:0000:0000:0000:0000:ffff:255.255.255.255]:065535",
		"[::ffff:192.0.2.07]:1", "[]:1", "[::1]:1:1", "192.0.2.7:1:1", "\xff\xfe:1", "192.0.2.7:\xd9\xa1", "0x7f.0.0.1:1",
		"2130706433:1",
	} {
		add(fmt.Sprintf("address %q", address), bare(sign(1, 1, address)))
	}

	many := func(n int) (addresses []string) {
		for i := range n {
			addresses = append(addresses, fmt.Sprintf("192.0.2.%d:1", i))
		}
		return addresses
	}
	add("no address", bare(sign(1, 1)))
	add("ten addresses", bare(sign(1, 1, many(10)...)))
	add("eleven addresses", bare(sign(1, 1, many(11)...)))
	add("one address twice", bare(sign(1, 1, "192.0.2.7:1", "192.0.2.7:1")))
	add("one good and one bad address", bare(sign(1, 1, "192.0.2.7:1", "localhost:1")))
	add("counter 0", bare(sign(1, 0, "192.0.2.7:1")))
	add("the last counter", bare(sign(1, ^uint64(0), "192.0.2.7:1")))
	add("not an oracle", bare(sign(4, 1, "192.0.2.7:1")))

	change := func(name string, change func(*serialization.SignedAnnouncement)) {
		announcement := sign(1, 1, "192.0.2.7:1")
		change(announcement)
		add(name, bare(announcement))
	}
	change("another counter than what is signed", func(a *serialization.SignedAnnouncement) { a.Counter++ })
	change("another address than what is signed", func(a *serialization.SignedAnnouncement) { a.Addrs[0][0]-- })
	change("a signature with a bit changed", func(a *serialization.SignedAnnouncement) { a.Sig[40] ^= 1 })
	change("a signature of 63 bytes", func(a *serialization.SignedAnnouncement) { a.Sig = a.Sig[:63] })
	change("a signature of 65 bytes", func(a *serialization.SignedAnnouncement) { a.Sig = append(a.Sig, 0) })
	change("no signature", func(a *serialization.SignedAnnouncement) { a.Sig = nil })
	change("the other's key", func(a *serialization.SignedAnnouncement) { a.PublicKey = key(3).public() })
	change("a key of 31 bytes", func(a *serialization.SignedAnnouncement) { a.PublicKey = a.PublicKey[:31] })
	change("a key of 33 bytes", func(a *serialization.SignedAnnouncement) { a.PublicKey = append(a.PublicKey, 0) })
	change("no key", func(a *serialization.SignedAnnouncement) { a.PublicKey = nil })

	good := func() *serialization.SignedAnnouncement { return sign(1, 1, "192.0.2.7:1") }
	other := func() *serialization.SignedAnnouncement { return sign(3, 1, "192.0.2.3:1") }
	badSignature := func() *serialization.SignedAnnouncement {
		announcement := other()
		announcement.Sig[0] ^= 1
		return announcement
	}
	malformed := func() *serialization.SignedAnnouncement { return sign(3, 1, "localhost:1") }
	add("a reconcile of none", reconcile())
	add("a reconcile of one", reconcile(good()))
	add("a reconcile of two", reconcile(other(), good()))
	add("a reconcile with a bad signature before ours", reconcile(badSignature(), good()))
	add("a reconcile with a malformed announcement behind ours", reconcile(good(), malformed()))
	add("a reconcile with a stranger before ours", reconcile(sign(4, 1, "192.0.2.7:1"), good()))
	fill := func(n int) (members []*serialization.SignedAnnouncement) {
		for range n {
			members = append(members, other())
		}
		return append(members, good())
	}
	add("a reconcile of 165", reconcile(fill(164)...))
	add("a reconcile of 166", reconcile(fill(165)...))

	message := bare(good())
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	add("nothing", nil)
	add("only the reserved field", []byte{0x0a, 0})
	add("the reserved field before ours", join([]byte{0x0a, 1, 0}, message))
	add("an unknown field before ours", join([]byte{0x78, 1}, message))
	add("an unknown field behind ours", join(message, []byte{0x78, 1}))
	add("half of it", message[:len(message)/2])
	add("a byte too few", message[:len(message)-1])
	add("a zero byte behind it", join(message, []byte{0}))
	add("a group that does not end", join(message, []byte{0x7b}))
	add("a whole group", join(message, []byte{0x7b, 0x7c}))
	add("the wrong wire type", []byte{0x10, 1})
	add("twice, one merged into the other", join(message, message))
	add("an announcement, then a reconcile of the other", join(message, reconcile(other())))
	add("a reconcile of the other, then an announcement", join(reconcile(other()), message))
	add("two reconciles, one merged into the other", join(reconcile(good()), reconcile(other())))
	add("an unknown field within the announcement", inner(good(), []byte{0x78, 1}))
	add("another counter behind the first", inner(good(), []byte{0x10, 2}))
	add("the same counter behind the first", inner(good(), []byte{0x10, 1}))
	add("a counter in five bytes", inner(sign(1, 0, "192.0.2.7:1"), []byte{0x10, 0x80, 0x80, 0x80, 0x80, 0}))
	add("a counter of eleven bytes", inner(sign(1, 0, "192.0.2.7:1"), join([]byte{0x10}, bytes.Repeat([]byte{0x80}, 10), []byte{0})))
	add("a length beyond the end", []byte{0x12, 0xff, 0xff, 0xff, 0xff, 0x0f})
	return all
}

// take tells whether seed 2 knows seed 1 after message.
func take(message []byte) bool {
	node := start(2, []string{"127.0.0.1:1"}, []types.PeerID{id(1), id(2), id(3)})
	defer node.close()
	node.incoming <- message
	// Messages are taken one after another: when the second is, so was the first.
	const sentinel = "203.0.113.3:3"
	node.incoming <- bare(sign(3, 1000, sentinel))
	deadline := time.Now().Add(patience)
	for {
		found, err := node.discoverer.FindPeer(id(3))
		must(err)
		if slices.Contains(found, sentinel) {
			break
		}
		if time.Now().After(deadline) {
			panic("the second message was not taken")
		}
		time.Sleep(time.Millisecond)
	}
	found, err := node.discoverer.FindPeer(id(1))
	must(err)
	return len(found) > 0
}

func sign(seed byte, counter uint64, addresses ...string) *serialization.SignedAnnouncement {
	signed := []byte("announcement for chainlink peer discovery v2.0.0")
	signed = binary.LittleEndian.AppendUint32(signed, uint32(len(addresses)))
	announcement := serialization.SignedAnnouncement{Counter: counter, PublicKey: key(seed).public()}
	for _, address := range addresses {
		signed = binary.LittleEndian.AppendUint32(signed, uint32(len(address)))
		signed = append(signed, address...)
		announcement.Addrs = append(announcement.Addrs, []byte(address))
	}
	signed = binary.LittleEndian.AppendUint64(signed, counter)
	digest := sha256.Sum256(signed)
	announcement.Sig = ed25519.Sign(key(seed).secret, digest[:])
	return &announcement
}

func bare(announcement *serialization.SignedAnnouncement) []byte {
	return marshal(&serialization.MessageWrapper{
		Msg: &serialization.MessageWrapper_MessageSignedAnnouncement{MessageSignedAnnouncement: announcement}})
}

func reconcile(announcements ...*serialization.SignedAnnouncement) []byte {
	return marshal(&serialization.MessageWrapper{
		Msg: &serialization.MessageWrapper_MessageReconcile{
			MessageReconcile: &serialization.Reconcile{Anns: announcements}}})
}

// inner is a message with more bytes at the end of its announcement.
func inner(announcement *serialization.SignedAnnouncement, more []byte) []byte {
	content := append(marshal(announcement), more...)
	return append(binary.AppendUvarint([]byte{0x12}, uint64(len(content))), content...)
}

func marshal(message proto.Message) []byte {
	bytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	must(err)
	return bytes
}

// ---------------------------------------------------------------------------
// A discoverer without a network

type node struct {
	discoverer *ragedisco.Ragep2pDiscoverer
	host       *fakeHost
	incoming   chan []byte
}

func start(seed byte, addresses []string, oracles []types.PeerID) node {
	incoming := make(chan []byte, 16)
	host := &fakeHost{id(seed), incoming, make(chan []byte, 1024)}
	discoverer := ragedisco.NewRagep2pDiscoverer(20*time.Millisecond, addresses, nil, prometheus.NewRegistry())
	must(startDiscoverer((*ragedisco.Ragep2pDiscoverer).Start, discoverer, host, key(seed)))
	must(discoverer.AddGroup(ocrtypes.ConfigDigest{7}, oracles, nil))
	return node{discoverer, host, incoming}
}

// startDiscoverer infers L, the type of a logger that lives in an internal package.
func startDiscoverer[L any](
	start func(*ragedisco.Ragep2pDiscoverer, ragep2pwrapper.Host, types.PeerKeyring, L) error,
	discoverer *ragedisco.Ragep2pDiscoverer, host ragep2pwrapper.Host, keyring types.PeerKeyring,
) error {
	return start(discoverer, host, keyring, any(silent[L]{}).(L))
}

func (n node) next() []byte {
	select {
	case message := <-n.host.outgoing:
		return message
	case <-time.After(patience):
		panic("nothing was sent")
	}
}

func (n node) close() { must(n.discoverer.Close()) }

type fakeHost struct {
	id       types.PeerID
	incoming chan []byte
	outgoing chan []byte
}

func (h *fakeHost) Start() error     { return nil }
func (h *fakeHost) Close() error     { return nil }
func (h *fakeHost) ID() types.PeerID { return h.id }
func (h *fakeHost) RawWrappee() any  { return nil }

func (h *fakeHost) NewStream(
	other types.PeerID, name string, _, _, _ int, _, _ types.TokenBucketParams,
) (ragep2pwrapper.Stream, error) {
	return &fakeStream{h, other, name}, nil
}

type fakeStream struct {
	host  *fakeHost
	other types.PeerID
	name  string
}

func (s *fakeStream) Other() types.PeerID { return s.other }
func (s *fakeStream) Name() string        { return s.name }

// ReceiveMessages delivers on one stream only: between two there is no order.
func (s *fakeStream) ReceiveMessages() <-chan []byte {
	if s.other == id(1) || s.host.id == id(1) {
		return s.host.incoming
	}
	return nil
}

func (s *fakeStream) Close() error { return nil }

func (s *fakeStream) SendMessage(message []byte) {
	select {
	case s.host.outgoing <- message:
	default:
	}
}

// silent is a logger for which L is an interface that it implements.
type silent[L any] struct{}

func (silent[L]) Trace(string, commontypes.LogFields)    {}
func (silent[L]) Debug(string, commontypes.LogFields)    {}
func (silent[L]) Info(string, commontypes.LogFields)     {}
func (silent[L]) Warn(string, commontypes.LogFields)     {}
func (silent[L]) Error(string, commontypes.LogFields)    {}
func (silent[L]) Critical(string, commontypes.LogFields) {}

func (s silent[L]) MakeChild(commontypes.LogFields) L   { return any(s).(L) }
func (s silent[L]) MakeUpdated(commontypes.LogFields) L { return any(s).(L) }

func (silent[L]) ErrorIfNotCanceled(string, context.Context, commontypes.LogFields) {}

type keyring struct{ secret ed25519.PrivateKey }

func key(seed byte) keyring {
	return keyring{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))}
}

func (k keyring) public() []byte { return slices.Clone(k.secret.Public().(ed25519.PublicKey)) }

func (k keyring) Sign(message []byte) ([]byte, error) { return ed25519.Sign(k.secret, message), nil }

func (k keyring) PublicKey() types.PeerPublicKey {
	return types.MustPeerPublicKeyFromGenericPublicKey(k.secret.Public())
}

func id(seed byte) types.PeerID { return types.PeerIDFromKeyring(key(seed)) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}
