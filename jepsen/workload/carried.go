package workload

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"

	"onceq/client"
	"onceq/transport/wire"
)

const (
	bizMark     = "|" // between the id and the filling of a biz-id
	bizFilling  = 200 // bytes at most, of most biz-ids
	headersMost = 6
	headerName  = 20
	headerMost  = 120
	// One in extremeOne is as large as it may be: a biz-id, a name of a header; and one in
	// extremeValue the value of one.
	extremeOne, extremeValue = 60, 1000
)

// content is the message of an id: all of it but what its workload is about is made from
// the id alone, so that every copy has the same.
func content(id string) client.Message {
	r := rand.New(rand.NewPCG(hashOf(id), 2))
	size := func(least, most, extreme, one int) int {
		if r.IntN(one) == 0 {
			return extreme
		}
		return least + r.IntN(most-least+1)
	}
	m := client.Message{Body: body(id), BizID: id + bizMark}
	room := wire.BizIDBytesMax - len(m.BizID)
	m.BizID += anyText(r, min(room, size(0, bizFilling, room, extremeOne)))
	for range r.IntN(headersMost + 1) { // of one name there may be several
		m.Headers = append(m.Headers, client.Header{
			Name: anyText(r, size(1, headerName, wire.HeaderNameBytesMax, extremeOne)), Value: anyText(r, size(0, headerMost, wire.HeaderValueBytesMax, extremeValue)),
		})
	}
	return m
}

// wireContent is content for who needs no client library.
func wireContent(id string) wire.Message {
	m := content(id)
	return wire.Message{Body: m.Body, BizID: m.BizID, Headers: m.Headers}
}

// anyText is n bytes of letters of one to four bytes.
func anyText(r *rand.Rand, n int) string {
	letters := []rune("aZ09 ._\x00\n\"äß€漢🐇")
	var b strings.Builder
	for b.Len() < n {
		c := letters[r.IntN(len(letters))]
		if b.Len()+len(string(c)) > n {
			c = 'x'
		}
		b.WriteRune(c)
	}
	return b.String()
}

// idOfBizID reads the id out of a biz-id.
func idOfBizID(bizID string) string {
	id, _, _ := strings.Cut(bizID, bizMark)
	return id
}

// carried is what of a message is to arrive as it was handed in, beside its body: short,
// and another when any of it is.
func carried(m wire.Message) string {
	var headers strings.Builder
	for _, h := range m.Headers {
		fmt.Fprintf(&headers, "%q=%q,", h.Name, h.Value)
	}
	text := fmt.Sprintf("biz-id %d:%08x headers %d:%08x", len(m.BizID), uint32(hashOf(m.BizID)), len(m.Headers), uint32(hashOf(headers.String())))
	if m.OrderingKey != "" {
		text += fmt.Sprintf(" key %q", m.OrderingKey)
	}
	if m.Priority != 0 {
		text += fmt.Sprintf(" priority %d", m.Priority)
	}
	return text
}

// carriedBy is carried of what a program hands in.
func carriedBy(m client.Message) string {
	return carried(wire.Message{BizID: m.BizID, Headers: m.Headers, OrderingKey: m.OrderingKey, Priority: uint8(m.Priority)})
}

// carriedTo is carried of what a program is handed.
func carriedTo(d *client.Delivery) string {
	return carried(wire.Message{BizID: d.BizID(), Headers: d.Headers(), OrderingKey: d.OrderingKey(), Priority: uint8(d.Priority())})
}

func hashOf(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // never fails
	return h.Sum64()
}
