package member

import (
	"bytes"
	"encoding/hex"
	"fmt"
)

// ReadKeyFile reads an operator's cluster key: 64 hexadecimal digits, or 32
// bytes as they are.
func ReadKeyFile(path string) ([]byte, error) {
	b, err := readBounded(path, 4096)
	if err != nil {
		return nil, fmt.Errorf("read cluster key: %w", err)
	}
	if text := bytes.TrimSpace(b); len(text) == 2*SecretBytes {
		key := make([]byte, SecretBytes)
		if _, err := hex.Decode(key, text); err == nil {
			return key, nil
		}
	}
	if len(b) == SecretBytes {
		return b, nil
	}
	return nil, fmt.Errorf("cluster key in %s: want %d hexadecimal digits or %d bytes (head -c 32 /dev/urandom > FILE makes one)",
		path, 2*SecretBytes, SecretBytes)
}
