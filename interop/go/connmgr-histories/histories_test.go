// Package histories replays histories against go-libp2p's BasicConnMgr,
// unmodified, and says what is so after each operation.
//
// It is a test binary, as nothing else may have a clock of its own that the
// standard library obeys (testing/synctest): the manager runs with the clock
// that it has in production, and an hour takes milliseconds. It is built with
// `go test -c` and run with -test.run=TestHistories.
//
// Standard input has one history in JSON a line, standard output one answer a
// line: the state after each of its operations. Times are milliseconds since
// the manager was made; operations happen half a second behind the full ones,
// on which everything of the manager's ticks. Decaying tags tick first.
package histories

import (
	"bufio"
	"context"
	"encoding/json"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/benbjohnson/clock"
	coreconnmgr "github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	ma "github.com/multiformats/go-multiaddr"
)

type history struct {
	Low        int `json:"low"`
	High       int `json:"high"`
	Grace      int `json:"grace"` // seconds, like the others
	Silence    int `json:"silence"`
	Resolution int `json:"resolution"`
	// Whether a connection that is told to close waits for a release.
	Slow       bool        `json:"slow"`
	Peers      int         `json:"peers"`
	Protection []string    `json:"protection"`
	Operations []operation `json:"operations"`
}

type operation struct {
	Do      string `json:"do"`
	Peer    int    `json:"peer"`
	Tag     string `json:"tag"`
	Value   int    `json:"value"`
	Inbound bool   `json:"inbound"`
	Streams int    `json:"streams"`
	Serial  int    `json:"serial"` // of a connection, given by the history
	Port    int    `json:"port"`
	Seconds int    `json:"seconds"`
}

// state is what is so after an operation.
type state struct {
	Trims []trim      `json:"trims"` // that closed something
	Peers []*peerInfo `json:"peers"`
	// Serials of connections, in order.
	Connected []int `json:"connected"`
	// For each peer: under any tag, and under each.
	Protected [][]bool `json:"protected"`
	Count     int      `json:"count"`
	LastTrim  int64    `json:"last_trim"` // -1 for never
	Still     bool     `json:"still"`     // what Unprotect returned
}

type trim struct {
	At     int64 `json:"at"`
	Closed []int `json:"closed"` // serials, in order
}

type peerInfo struct {
	FirstSeen int64          `json:"first_seen"`
	Value     int            `json:"value"`
	Tags      map[string]int `json:"tags"`
	Addresses int            `json:"addresses"` // as many as its connections have
}

// conn stands in for a connection, as in upstream's own tests.
type conn struct {
	network.Conn
	node    *node
	peer    peer.ID
	serial  int
	port    int
	inbound bool
	streams int
	told    bool
}

func (c *conn) RemotePeer() peer.ID { return c.peer }
func (c *conn) RemoteMultiaddr() ma.Multiaddr {
	return ma.StringCast("/ip4/127.0.0.1/udp/" + strconv.Itoa(c.port))
}
func (c *conn) Stat() network.ConnStats {
	direction := network.DirOutbound
	if c.inbound {
		direction = network.DirInbound
	}
	return network.ConnStats{Stats: network.Stats{Direction: direction}, NumStreams: c.streams}
}
func (c *conn) Close() error { return c.CloseWithError(0) }
func (c *conn) CloseWithError(network.ConnErrorCode) error {
	c.node.closed(c)
	return nil
}

// late is the clock of production, but for tickers: they tick a millisecond
// behind, so that what ticks at the same time has always the same order.
type late struct{ clock.Clock }

func (c late) Ticker(d time.Duration) *clock.Ticker {
	time.Sleep(time.Millisecond)
	return c.Clock.Ticker(d)
}

type node struct {
	history *history
	start   time.Time
	manager *connmgr.BasicConnMgr
	notifee network.Notifiee
	peers   []peer.ID
	conns   map[int]*conn
	decay   map[string]coreconnmgr.DecayingTag
	closes  bool // the manager is closed
	trims   []trim
	told    []int // to close, and not closed yet
}

// closed is called by the manager, from whichever of its tasks trims.
func (n *node) closed(c *conn) {
	// Ticks are a millisecond behind.
	at := n.now() / 500 * 500
	if last := len(n.trims) - 1; last < 0 || n.trims[last].At != at {
		n.trims = append(n.trims, trim{At: at})
	}
	last := &n.trims[len(n.trims)-1]
	last.Closed = append(last.Closed, c.serial)
	if n.history.Slow {
		if !c.told {
			c.told = true
			n.told = append(n.told, c.serial)
		}
		return
	}
	n.gone(c)
}

func (n *node) gone(c *conn) {
	if _, known := n.conns[c.serial]; !known {
		return
	}
	delete(n.conns, c.serial)
	for at, serial := range n.told {
		if serial == c.serial {
			n.told = append(n.told[:at:at], n.told[at+1:]...)
			break
		}
	}
	n.notifee.Disconnected(nil, c)
}

func (n *node) now() int64 { return time.Since(n.start).Milliseconds() }

func (n *node) since(t time.Time) int64 { return t.Sub(n.start).Milliseconds() }

// The first loses 3 at each tick, the second half of what it has.
func (n *node) register(name string) {
	decay, bump := coreconnmgr.DecayFixed(3), coreconnmgr.BumpSumUnbounded()
	interval := 7 * time.Second
	if name == "linear" {
		decay, bump = coreconnmgr.DecayLinear(0.5), coreconnmgr.BumpOverwrite()
		interval = 10 * time.Second
	}
	tag, err := n.manager.RegisterDecayingTag(name, interval, decay, bump)
	must(err)
	n.decay[name] = tag
}

func newNode(h *history) *node {
	n := &node{
		history: h,
		start:   time.Now(),
		conns:   make(map[int]*conn),
		decay:   make(map[string]coreconnmgr.DecayingTag),
	}
	for i := range h.Peers {
		id := make([]byte, 38)
		copy(id, []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20})
		// Some share a segment.
		id[36], id[37] = byte(i), byte(i%5)
		n.peers = append(n.peers, peer.ID(id))
	}
	manager, err := connmgr.NewConnManager(h.Low, h.High,
		connmgr.WithClock(late{clock.New()}),
		connmgr.WithGracePeriod(time.Duration(h.Grace)*time.Second),
		connmgr.WithSilencePeriod(time.Duration(h.Silence)*time.Second),
		connmgr.DecayerConfig(&connmgr.DecayerCfg{Resolution: time.Duration(h.Resolution) * time.Second}))
	must(err)
	n.manager, n.notifee = manager, manager.Notifee()
	n.register("fixed")
	n.register("linear")
	time.Sleep(500 * time.Millisecond)
	return n
}

func (n *node) do(o operation, s *state) {
	id := peer.ID("")
	if o.Peer < len(n.peers) {
		id = n.peers[o.Peer]
	}
	switch o.Do {
	case "tag":
		n.manager.TagPeer(id, o.Tag, o.Value)
	case "untag":
		n.manager.UntagPeer(id, o.Tag)
	case "upsert":
		n.manager.UpsertTag(id, o.Tag, func(old int) int { return old + o.Value })
	case "protect":
		n.manager.Protect(id, o.Tag)
	case "unprotect":
		s.Still = n.manager.Unprotect(id, o.Tag)
	case "bump":
		if !n.closes {
			must(n.decay[o.Tag].Bump(id, o.Value))
		}
	case "remove":
		if !n.closes {
			must(n.decay[o.Tag].Remove(id))
		}
	case "reset":
		if !n.closes {
			must(n.decay[o.Tag].Close())
			synctest.Wait()
			n.register(o.Tag)
		}
	case "connect":
		c := &conn{node: n, peer: id, serial: o.Serial, port: o.Port, inbound: o.Inbound, streams: o.Streams}
		n.conns[c.serial] = c
		n.notifee.Connected(nil, c)
	case "disconnect":
		// The oldest of the peer's, if it has any.
		var oldest *conn
		for _, c := range n.conns {
			if c.peer == id && (oldest == nil || c.serial < oldest.serial) {
				oldest = c
			}
		}
		if oldest != nil {
			n.gone(oldest)
		}
	case "release":
		for range min(o.Value, len(n.told)) {
			n.gone(n.conns[slices.Min(n.told)])
		}
	case "trim":
		n.manager.TrimOpenConns(context.Background())
	case "force":
		n.manager.ForceTrim()
	case "wait":
		time.Sleep(time.Duration(o.Seconds) * time.Second)
	case "close":
		must(n.manager.Close())
		n.closes = true
	case "nothing":
	default:
		panic("no operation " + o.Do)
	}
	synctest.Wait()
}

func (n *node) state(s *state) {
	s.Trims, n.trims = n.trims, nil
	for _, id := range n.peers {
		protected := []bool{n.manager.IsProtected(id, "")}
		for _, tag := range n.history.Protection {
			protected = append(protected, n.manager.IsProtected(id, tag))
		}
		s.Protected = append(s.Protected, protected)
		info := n.manager.GetTagInfo(id)
		if info == nil {
			s.Peers = append(s.Peers, nil)
			continue
		}
		s.Peers = append(s.Peers, &peerInfo{
			FirstSeen: n.since(info.FirstSeen), Value: info.Value, Tags: info.Tags, Addresses: len(info.Conns),
		})
	}
	s.Connected = slices.Sorted(maps.Keys(n.conns))
	info := n.manager.GetInfo()
	s.Count, s.LastTrim = info.ConnCount, -1
	if !info.LastTrim.IsZero() {
		s.LastTrim = n.since(info.LastTrim)
	}
}

func TestHistories(t *testing.T) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, math.MaxInt32)
	out := bufio.NewWriter(os.Stdout)
	for lines.Scan() {
		var h history
		must(json.Unmarshal(lines.Bytes(), &h))
		states := []state{}
		synctest.Test(t, func(*testing.T) {
			n := newNode(&h)
			for _, o := range h.Operations {
				var s state
				n.do(o, &s)
				n.state(&s)
				states = append(states, s)
			}
			must(n.manager.Close())
		})
		line, err := json.Marshal(states)
		must(err)
		_, err = out.Write(append(line, '\n'))
		must(err)
		must(out.Flush())
	}
	must(lines.Err())
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
