package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"onceq/client"
	"onceq/client/internal/sequenced"
)

// The layout in the file, a bbolt database:
//
//	onceq.outbox       bucket; its counter is the newest number
//	  format, queue, name, cluster   values
//	  entries          bucket: number -> record
//	  waiting          bucket: number -> nothing, or the summed id of an earlier sending
//	  sent             bucket: number -> summed id
//	  held             bucket: number -> hold
//
// A number is 8 bytes, big endian. Invariant: each number in entries is in exactly
// one of waiting, sent and held, and these have no others.
//
//	record   u8 version 1 | u32 crc32c of what follows | i64 taken, ns since 1970 |
//	         u64 checksum | u8 order + 1 | u32 messages | encoded messages
//	id       u64 incarnation | u32 group | u64 session | u64 sequence
//	summed   id | u32 crc32c of it, which ids of older files lack
//	hold     u8 reason | i64 when | id | text
//
// All integers are big endian.
const (
	recordVersion = 1
	recordHead    = 1 + 4
	recordFixed   = recordHead + 8 + 8 + 1 + 4
	idBytes       = 8 + 4 + 8 + 8
	holdFixed     = 1 + 8 + idBytes
	textBytesMax  = 1024
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is what an entry is on disk.
type record struct {
	taken   time.Time
	publish sequenced.Publish
}

func (r *record) size() int { return recordFixed + len(r.publish.Encoded) }

func (r *record) encode() []byte {
	b := make([]byte, recordHead, r.size())
	b[0] = recordVersion
	b = binary.BigEndian.AppendUint64(b, uint64(r.taken.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, r.publish.Checksum)
	b = append(b, byte(r.publish.Order+1))
	b = binary.BigEndian.AppendUint32(b, uint32(r.publish.Count))
	b = append(b, r.publish.Encoded...)
	binary.BigEndian.PutUint32(b[1:], crc32.Checksum(b[recordHead:], castagnoli))
	return b
}

// decodeRecord copies what it needs: b belongs to the database.
func decodeRecord(b []byte) (record, error) {
	switch {
	case len(b) < recordFixed:
		return record{}, fmt.Errorf("a record of %d bytes", len(b))
	case b[0] != recordVersion:
		return record{}, fmt.Errorf("a record of version %d, this program knows version %d", b[0], recordVersion)
	case crc32.Checksum(b[recordHead:], castagnoli) != binary.BigEndian.Uint32(b[1:]):
		return record{}, errors.New("checksum mismatch")
	}
	b = b[recordHead:]
	return record{
		taken: time.Unix(0, int64(binary.BigEndian.Uint64(b))),
		publish: sequenced.Publish{
			Checksum: binary.BigEndian.Uint64(b[8:]),
			Order:    int(b[16]) - 1,
			Count:    int(binary.BigEndian.Uint32(b[17:])),
			Encoded:  append([]byte(nil), b[21:]...),
		},
	}, nil
}

func appendID(b []byte, id client.InnerMsgID) []byte {
	b = binary.BigEndian.AppendUint64(b, id.Session.Incarnation)
	b = binary.BigEndian.AppendUint32(b, id.Session.Group)
	b = binary.BigEndian.AppendUint64(b, id.Session.Number)
	return binary.BigEndian.AppendUint64(b, id.Sequence)
}

// sumID is an id with a checksum: under another one an entry would be sent twice, or
// taken for stored by the record of another producer's.
func sumID(id client.InnerMsgID) []byte {
	b := appendID(make([]byte, 0, idBytes+crc32.Size), id)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeSummedID reads what sumID has made, or an id of a file from before it had a
// checksum. Nothing is the zero value.
func decodeSummedID(b []byte) (client.InnerMsgID, error) {
	if n := len(b) - crc32.Size; n == idBytes {
		if crc32.Checksum(b[:n], castagnoli) != binary.BigEndian.Uint32(b[n:]) {
			return client.InnerMsgID{}, errors.New("an id whose checksum does not match")
		}
		b = b[:n]
	}
	return decodeID(b)
}

// decodeID reads an id; nothing is the zero value.
func decodeID(b []byte) (id client.InnerMsgID, err error) {
	switch len(b) {
	case 0:
	case idBytes:
		id.Session.Incarnation = binary.BigEndian.Uint64(b)
		id.Session.Group = binary.BigEndian.Uint32(b[8:])
		id.Session.Number = binary.BigEndian.Uint64(b[12:])
		id.Sequence = binary.BigEndian.Uint64(b[20:])
	default:
		err = fmt.Errorf("an id of %d bytes", len(b))
	}
	return id, err
}

// hold is why an entry is held.
type hold struct {
	reason Reason
	when   time.Time
	id     client.InnerMsgID
	text   string
}

func (h hold) encode() []byte {
	b := make([]byte, 0, holdFixed+len(h.text))
	b = append(b, byte(h.reason))
	b = binary.BigEndian.AppendUint64(b, uint64(h.when.UnixNano()))
	b = appendID(b, h.id)
	return append(b, h.text[:min(len(h.text), textBytesMax)]...)
}

func decodeHold(b []byte) (h hold, err error) {
	if len(b) < holdFixed {
		return h, fmt.Errorf("a hold of %d bytes", len(b))
	}
	h.reason = Reason(b[0])
	h.when = time.Unix(0, int64(binary.BigEndian.Uint64(b[1:])))
	h.id, err = decodeID(b[9:holdFixed])
	h.text = string(b[holdFixed:])
	return h, err
}

func key(n Number) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func number(k []byte) Number { return Number(binary.BigEndian.Uint64(k)) }
