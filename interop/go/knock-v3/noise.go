package main

import (
	"crypto/hmac"
	"encoding/binary"
	"hash"

	"golang.org/x/crypto/blake2s"
)

// symmetric is the SymmetricState of the Noise specification (section 5.2), for ChaChaPoly and BLAKE2s.
type symmetric struct {
	chain, hash, key []byte
	nonce            uint64
}

// newSymmetric wants a name longer than a hash, which is then hashed itself.
func newSymmetric(name string) *symmetric {
	hash := blake2s.Sum256([]byte(name))
	return &symmetric{chain: hash[:], hash: hash[:]}
}

func (s *symmetric) mixHash(data []byte) {
	hash := blake2s.Sum256(concat(s.hash, data))
	s.hash = hash[:]
}

func (s *symmetric) mixKey(material []byte) {
	out := noiseHKDF(s.chain, material, 2)
	s.chain, s.key, s.nonce = out[0], out[1], 0
}

func (s *symmetric) mixKeyAndHash(material []byte) {
	out := noiseHKDF(s.chain, material, 3)
	s.mixHash(out[1])
	s.chain, s.key, s.nonce = out[0], out[2], 0
}

func (s *symmetric) encryptAndHash(plain []byte) []byte {
	nonce := binary.LittleEndian.AppendUint64(make([]byte, 4), s.nonce)
	sealed := seal(s.key, nonce, s.hash, plain)
	s.nonce++
	s.mixHash(sealed)
	return sealed
}

// noiseHKDF is section 4.3's.
func noiseHKDF(chain, material []byte, outputs int) [][]byte {
	temporary := hmacBLAKE2s(chain, material)
	var out [][]byte
	var last []byte
	for i := 1; i <= outputs; i++ {
		last = hmacBLAKE2s(temporary, concat(last, []byte{byte(i)}))
		out = append(out, last)
	}
	return out
}

func hmacBLAKE2s(key, data []byte) []byte {
	mac := hmac.New(func() hash.Hash {
		h, err := blake2s.New256(nil)
		if err != nil {
			panic(err) // Only a key can be wrong.
		}
		return h
	}, key)
	mac.Write(data)
	return mac.Sum(nil)
}
