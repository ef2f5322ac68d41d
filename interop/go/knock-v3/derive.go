package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"io"

	"filippo.io/edwards25519"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/curve25519"
	"golang.org/x/crypto/hkdf"
)

// Network is a private network.
type Network struct {
	Name, Secret []byte
}

// Derive computes every value of a vector, by the names that the file gives them. No network is the open one.
func Derive(in Inputs, network *Network) (map[string][]byte, error) {
	dialer := ed25519.NewKeyFromSeed(in.DialerSeed).Public().(ed25519.PublicKey)
	listener := ed25519.NewKeyFromSeed(in.ListenerSeed).Public().(ed25519.PublicKey)

	networkKey, psk := make([]byte, 32), make([]byte, 32)
	if network != nil {
		networkKey = hkdfSHA256("libp2p-knock/3 network", network.Secret, network.Name)
		psk = hkdfSHA256("", networkKey, []byte("psk"))
	}
	gate := hkdfSHA256("libp2p-knock/3 gate", concat(listener, networkKey), nil)

	dialerSecret, listenerSecret := x25519Secret(in.DialerSeed), x25519Secret(in.ListenerSeed)
	dialerPublic, err := x25519Public(dialer)
	if err != nil {
		return nil, err
	}
	listenerPublic, err := x25519Public(listener)
	if err != nil {
		return nil, err
	}
	ephemeralPublic, err := curve25519.X25519(in.EphemeralSecret, curve25519.Basepoint)
	if err != nil {
		return nil, err
	}
	es, err := curve25519.X25519(in.EphemeralSecret, listenerPublic)
	if err != nil {
		return nil, err
	}
	ss, err := curve25519.X25519(dialerSecret, listenerPublic)
	if err != nil {
		return nil, err
	}

	payload := concat(dialer, binary.BigEndian.AppendUint64(nil, in.TimeMs), []byte{in.Mode, in.Flags})
	payload = binary.BigEndian.AppendUint16(payload, uint16(len(in.Flight)))
	payload = concat(payload, make([]byte, 4), in.FlightKey)

	// Noise_IKpsk1: the responder's static key goes before; then e, es, s, ss, psk.
	prologue := concat([]byte("libp2p-knock/3"), listener)
	noise := newSymmetric("Noise_IKpsk1_25519_ChaChaPoly_BLAKE2s")
	noise.mixHash(prologue)
	noise.mixHash(listenerPublic)
	noise.mixHash(ephemeralPublic)
	noise.mixKey(ephemeralPublic) // As psk handshakes do with every e.
	noise.mixKey(es)
	keyAfterES := noise.key
	sealedStatic := noise.encryptAndHash(dialerPublic)
	noise.mixKey(ss)
	noise.mixKeyAndHash(psk)
	keyAfterPSK := noise.key
	message := concat(ephemeralPublic, sealedStatic, noise.encryptAndHash(payload))

	box := seal(gate, in.Nonce, nil, message)
	flight := seal(in.FlightKey, make([]byte, 12), nil, in.Flight)
	return map[string][]byte{
		"network_key":             networkKey,
		"psk":                     psk,
		"k_gate":                  gate,
		"dialer_ed25519_public":   dialer,
		"listener_ed25519_public": listener,
		"dialer_x25519_secret":    dialerSecret,
		"dialer_x25519_public":    dialerPublic,
		"listener_x25519_secret":  listenerSecret,
		"listener_x25519_public":  listenerPublic,
		"prologue":                prologue,
		"payload":                 payload,
		"ephemeral_public":        ephemeralPublic,
		"dh_es":                   es,
		"dh_ss":                   ss,
		"key_after_es":            keyAfterES,
		"key_after_psk":           keyAfterPSK,
		"handshake_hash_after":    noise.hash,
		"noise_message":           message,
		"box":                     box,
		"sealed_flight":           flight,
		"knock":                   concat(in.Nonce, box, flight),
	}, nil
}

// x25519Secret is the scalar that Ed25519 takes from a seed, clamped.
func x25519Secret(seed []byte) []byte {
	hash := sha512.Sum512(seed)
	secret := hash[:32]
	secret[0] &= 248
	secret[31] = secret[31]&127 | 64
	return secret
}

// x25519Public maps a point of the Edwards curve to its u-coordinate on the Montgomery curve.
func x25519Public(key ed25519.PublicKey) ([]byte, error) {
	point, err := new(edwards25519.Point).SetBytes(key)
	if err != nil {
		return nil, err
	}
	return point.BytesMontgomery(), nil
}

func hkdfSHA256(salt string, material, info []byte) []byte {
	out := make([]byte, 32)
	if _, err := io.ReadFull(hkdf.New(sha256.New, material, []byte(salt), info), out); err != nil {
		panic(err) // 32 bytes are one block.
	}
	return out
}

func seal(key, nonce, authenticated, plain []byte) []byte {
	aead, err := chacha20poly1305.New(key)
	if err != nil {
		panic(err) // Every key here has 32 bytes.
	}
	return aead.Seal(nil, nonce, plain, authenticated)
}

func concat(parts ...[]byte) []byte {
	var whole []byte
	for _, part := range parts {
		whole = append(whole, part...)
	}
	return whole
}
