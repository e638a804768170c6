package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"onceq/transport/wire/pack"
)

// codec is one message type.
type codec struct {
	name   string
	zero   any
	decode func(b []byte) (any, error)
}

func codecOf[T any](decode func(b []byte) (T, error)) codec {
	var zero T
	return codec{
		name: reflect.TypeFor[T]().Name(),
		zero: zero,
		decode: func(b []byte) (any, error) {
			v, err := decode(b)
			return v, err
		},
	}
}

// codecs has every message type. New ones go to the end: the fuzz corpus counts
// from the start.
var codecs = []codec{
	codecOf(DecodeHello), codecOf(DecodeWelcome), codecOf(DecodeTopology), codecOf(DecodeErrorReply),
	codecOf(DecodeStatusReply), codecOf(DecodeOpenSession), codecOf(DecodeSessionOpened),
	codecOf(DecodeCloseSession), codecOf(DecodePublishFrame), codecOf(DecodeMessage),
	codecOf(DecodePublishReply), codecOf(DecodeSeal), codecOf(DecodeSealReply), codecOf(DecodeOutcome),
	codecOf(DecodeOutcomeReply), codecOf(DecodeAttach), codecOf(DecodeAttached), codecOf(DecodeLeave),
	codecOf(DecodeSettle), codecOf(DecodeSettleReply), codecOf(DecodeDeliver), codecOf(DecodeLost),
	codecOf(DecodeQueueCreate), codecOf(DecodeQueueDelete), codecOf(DecodeQueuePurge),
	codecOf(DecodeQueueReply), codecOf(DecodeQueueShow), codecOf(DecodeQueueList),
	codecOf(DecodeQueuesReply), codecOf(DecodeNodeStatusRequest), codecOf(DecodeNodeStatus),
	codecOf(DecodeDigestRequest), codecOf(DecodeDigestReply), codecOf(DecodeMembersRequest),
	codecOf(DecodeMembers), codecOf(DecodeMemberChange),
	codecOf(DecodeQueueUpdate), codecOf(DecodeQueuePause), codecOf(DecodeEdit), codecOf(DecodeEditReply),
	codecOf(DecodeAckPublish), codecOf(DecodePeek), codecOf(DecodePeekReply), codecOf(DecodeMessageShow),
	codecOf(DecodeConsumersRequest), codecOf(DecodeConsumersReply), codecOf(DecodeSessionsRequest),
	codecOf(DecodeSessionsReply), codecOf(DecodeRedrive), codecOf(DecodeRedriveReply),
	codecOf(DecodeReceive), codecOf(DecodeRelease), codecOf(DecodeReceived),
	codecOf(DecodeCommittedRequest), codecOf(DecodeCommitted), codecOf(DecodeBackupOpen), codecOf(DecodeBackupHead), codecOf(DecodeBackupRead), codecOf(DecodeBackupPart),
	codecOf(DecodeRestoreBegin), codecOf(DecodeRestoreChunk), codecOf(DecodeRestoreEnd), codecOf(DecodeRestoreReply),
}

func encode(m any) []byte {
	var w pack.Writer
	m.(interface{ Append(w *pack.Writer) }).Append(&w)
	return w.Bytes()
}

// fill sets every field of v to something, by reflection: so a field that a
// codec forgets is seen.
func fill(rng *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(rng, v.Field(i))
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(randomText(rng, 300)))
			return
		}
		n := 1 + rng.IntN(4)
		if v.Type().Elem() == reflect.TypeFor[DeadLetter]() {
			n = 1
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(rng, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(rng, v.Index(i))
		}
	case reflect.String:
		v.SetString(randomText(rng, 60))
	case reflect.Bool:
		v.SetBool(rng.IntN(2) == 0)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		bits := v.Type().Bits()
		v.SetUint(1 + (rng.Uint64() & (math.MaxUint64 >> (64 - bits)) >> rng.IntN(bits) >> 1))
	case reflect.Int64:
		v.SetInt(int64(rng.Uint64())>>rng.IntN(60) | 1)
	default:
		panic(v.Kind())
	}
}

func randomText(rng *rand.Rand, most int) string {
	b := make([]byte, 1+rng.IntN(most))
	for i := range b {
		b[i] = byte('a' + rng.IntN(26))
	}
	return string(b)
}

func random(rng *rand.Rand, zero any) any {
	v := reflect.New(reflect.TypeOf(zero)).Elem()
	fill(rng, v)
	return v.Interface()
}

func TestMessages_DecodeToWhatWasEncoded(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range codecs {
		got, err := c.decode(encode(c.zero))
		if err != nil || !reflect.DeepEqual(got, c.zero) {
			t.Errorf("%s, zero: %+v, %v", c.name, got, err)
		}
		for range 50 {
			want := random(rng, c.zero)
			b := encode(want)
			got, err := c.decode(b)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%s:\n got %+v\nwant %+v\n%v", c.name, got, want, err)
			}
			if again := encode(got); !bytes.Equal(again, b) {
				t.Fatalf("%s: encoded again % x, before % x", c.name, again, b)
			}
		}
	}
}

// TestMessages_FieldsInTheOrderOfTheStruct reads each payload as an array with
// an element for each field: what messages.go promises to readers of the
// protocol.
func TestMessages_FieldsInTheOrderOfTheStruct(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, c := range codecs {
		m := random(rng, c.zero)
		r := pack.NewReader(encode(m))
		checkFields(t, c.name, r, reflect.ValueOf(m))
		if err := r.Done(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func checkFields(t *testing.T, path string, r *pack.Reader, v reflect.Value) {
	t.Helper()
	var got, want any
	switch {
	case v.Kind() == reflect.Struct:
		r.ArrayExact(v.NumField())
		for i := range v.NumField() {
			checkFields(t, path+"."+v.Type().Field(i).Name, r, v.Field(i))
		}
	case v.Kind() == reflect.Array:
		got, want = [16]byte(r.Bin(16)), v.Convert(reflect.TypeFor[[16]byte]()).Interface()
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		got, want = string(r.Bin(1000)), string(v.Bytes())
	case v.Kind() == reflect.Slice:
		r.ArrayExact(v.Len())
		for i := range v.Len() {
			checkFields(t, fmt.Sprintf("%s[%d]", path, i), r, v.Index(i))
		}
	case v.Kind() == reflect.String:
		got, want = r.Str(1000), v.String()
	case v.Kind() == reflect.Bool:
		got, want = r.Bool(), v.Bool()
	case v.CanInt():
		got, want = r.Int(), v.Int()
	case v.CanUint():
		got, want = r.Uint(), v.Uint()
	}
	if r.Err() != nil || got != want {
		t.Fatalf("%s: %v, want %v, %v", path, got, want, r.Err())
	}
}

func TestMessages_GoldenBytes(t *testing.T) {
	nonce := Nonce{0: 0xa0, 15: 0xaf}
	for _, g := range []struct {
		m    any
		want string
	}{
		{Hello{Version: 1, Client: "go", Cluster: "c"}, "93 01 a2676f a163"},
		{ErrorReply{Code: CodeNoQueue, Retriable: true, Text: "t", Leader: ""}, "94 cd07da c3 a174 a0"},
		{OpenSession{Incarnation: 0x9f3ac01276d3e5aa, Group: 1, Named: true, Name: "n", ExpectedEpoch: 2, Nonce: nonce, Label: "l"},
			"97 cf9f3ac01276d3e5aa 01 c3 a16e 02 c410a00000000000000000000000000000af a16c"},
		{PublishFrame{Incarnation: 5, Group: 1, Session: 42, Epoch: 3, Floor: 1090, Queue: "orders", Publishes: []Publish{{
			Sequence: 1093, After: 1092, Checksum: 0xfedcba9876543210,
			Messages: []Message{{Body: []byte("hi"), BizID: "o-1", Headers: []Header{{"k", "v"}}, Priority: 1, Delay: time.Second, DeliverAt: -1, TTL: 7}},
		}}},
			"97 05 01 2a 03 cd0442 a66f7264657273 91 94 cd0445 cd0444 cffedcba9876543210 91 98 c4026869 a36f2d31 91 92 a16b a176 a0 01 ce3b9aca00 ff 07"},
		{PublishReply{Results: []PublishResult{{Sequence: 1093, Status: StatusOK, Duplicate: true, Queue: 7, Lane: 3, Offset: 17, Count: 1}}},
			"91 91 98 cd0445 01 c3 07 03 11 01 90"},
		{Settle{Incarnation: 5, Group: 1, Consumer: ConsumerID(nonce), Done: 4, Items: []SettleItem{{From: 4, To: 6, Verb: VerbNack, Time: time.Millisecond, Reason: "no"}}},
			"95 05 01 c410a00000000000000000000000000000af 04 91 95 04 06 02 ce000f4240 a26e6f"},
		{Deliver{Consumer: ConsumerID(nonce), N: 2, Deliveries: []Delivery{{Number: 9, Queue: 7, Offset: 17, Attempt: 1, Remaining: 30 * time.Second, PublishedAt: 1, Message: []byte{0x98}}}},
			"93 c410a00000000000000000000000000000af 02 91 9b 09 07 00 11 01 00 cf00000006fc23ac00 01 c40198 90 c2"},
		{Delivery{Number: 9, Queue: 7, Attempt: 4, Failures: 3, Dead: []DeadLetter{{Reason: "r", FirstError: "f", LastError: "l", OriginQueue: "o", OriginLane: 2, OriginOffset: 17, OriginAttempts: 5}}},
			"9b 09 07 00 00 04 03 00 00 c400 91 97 a172 a166 a16c a16f 02 11 05 c2"},
		{QueueSettings{LeaseTime: 1, LengthMax: 2, BytesMax: 3, TTL: 4, DeliveryLimit: 5, DeadLetter: "d", BackoffMin: -1, BackoffMax: 6, SingleActive: true},
			"99 01 02 03 04 05 a164 ff 06 c3"},
		{QueueUpdate{Incarnation: 5, Group: 1, Number: 7, Revision: 2, Nonce: nonce},
			"96 05 01 07 02 c410a00000000000000000000000000000af 99 00 00 00 00 00 a0 00 00 c2"},
		{QueuePause{Incarnation: 5, Group: 1, Number: 7, Revision: 2, Nonce: nonce, Paused: true}, "96 05 01 07 02 c410a00000000000000000000000000000af c3"},
		{QueueDelete{Incarnation: 5, Group: 1, Number: 7, Force: true}, "94 05 01 07 c3"},
		{Edit{Incarnation: 5, Group: 1, Number: 7, Nonce: nonce, Verb: EditMove, Target: "t", Places: []Place{{Lane: 3, Offset: 17, Turn: 2}}}, "97 05 01 07 c410a00000000000000000000000000000af 04 a174 91 93 03 11 02"},
		{EditReply{Status: StatusOK, States: []EditState{EditDone, EditLeased}}, "92 01 c4020103"},
		{AckPublish{Incarnation: 5, Group: 1, Session: 42, Epoch: 3, Floor: 4, Sequence: 5, Checksum: 6, Consumer: ConsumerID(nonce), Number: 9, Done: 8,
			Outputs: []Output{{Queue: "q", Messages: []Message{{Body: []byte("hi")}}}}},
			"9b 05 01 2a 03 04 05 06 c410a00000000000000000000000000000af 09 08 91 92 a171 91 98 c4026869 a0 90 a0 00 00 00 00"},
		{PublishReply{Results: []PublishResult{{Sequence: 5, Status: StatusOK, Outputs: []Position{{Queue: 7, Lane: 3, Offset: 17, Count: 2}}}}},
			"91 91 98 05 01 c2 00 00 00 00 91 94 07 03 11 02"},
		{Peek{Queue: "q", State: MessageParked, FromLane: 1, FromOffset: 17, Limit: 100, Bodies: true}, "96 a171 05 01 11 64 c3"},
		{SessionsReply{Sessions: []SessionInfo{{Session: SessionID{5, 1, 42}, Named: true, Name: "n", Label: "l", Epoch: 2, Floor: 3, Next: 4, Outcomes: 1, Idle: 7}}},
			"91 91 99 93 05 01 2a c3 a16e a16c 02 03 04 01 07"},
		{ConsumersRequest{Queue: "q", From: 9, Limit: 100}, "93 a171 09 64"},
		{Redrive{Incarnation: 5, Group: 1, Queue: "q", Number: 7, Nonce: nonce, Target: "t", Where: []Condition{{FieldError, MatchRegexp, "x"}},
			Ends: []Place{{Lane: 3, Offset: 17}}, From: RedriveFrom{MessageParked, 3, 16}, One: true, At: Place{Offset: 2}, Limit: 100, Dry: true},
			"9e 05 01 a171 07 c410a00000000000000000000000000000af c41000000000000000000000000000000000 a174 91 93 02 02 a178 91 93 03 11 00 93 05 03 10 c3 93 00 02 00 64 c3"},
		{RedriveReply{Status: StatusOK, Number: 7, Edited: nonce, Ends: []Place{{Lane: 3, Offset: 17}}, Next: RedriveFrom{MessageReady, 3, 16}, More: true,
			Seen: 4, Moved: 3, Refused: 2, Skipped: 1, Targets: []string{"t"}, Matches: []RedriveMatch{{Lane: 3, Offset: 1, Age: 9}}},
			"9d 01 07 c410a00000000000000000000000000000af 91 93 03 11 00 93 01 03 10 c3 c2 04 03 02 01 91 a174 91 94 03 01 00 09"},
		{QueueList{From: 7}, "9107"},
		{BackupOpen{Index: 9}, "91 09"},
		{BackupHead{ID: BackupID(nonce), Cluster: "c", Incarnation: 5, Node: "n", Index: 9, Term: 2, Now: 3, Wall: 4, MachineVersion: 1, QueueMax: 7, Queues: 6, Messages: 8, Sessions: 2},
			"9d c410a00000000000000000000000000000af a163 05 a16e 09 02 03 04 01 07 06 08 02"},
		{BackupPart{Kind: BackupBodies, Bodies: 1, Data: []byte{0x98}}, "93 02 01 c40198"},
		{RestoreBegin{Incarnation: 5, Group: 1, Next: 6, Replaces: 7, Cluster: "c", From: 4, Backup: BackupID(nonce), QueueMax: 8, Force: true},
			"99 05 01 06 07 a163 04 c410a00000000000000000000000000000af 08 c3"},
		{RestoreChunk{Incarnation: 5, Group: 1, Next: 6, Number: 3, Kind: BackupTables, Data: []byte{1}}, "96 05 01 06 03 01 c40101"},
		{RestoreEnd{Incarnation: 5, Group: 1, Next: 6, Chunks: 4}, "95 05 01 06 04 c2"},
		{RestoreReply{Status: StatusNotEmpty, Incarnation: 5, Queues: 1, Messages: 2, Text: "t"},
			"98 1c 05 c41000000000000000000000000000000000 00 00 01 02 a174"},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(g.want, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := encode(g.m); !bytes.Equal(got, want) {
			t.Errorf("%T is % x, was % x", g.m, got, want)
		}
	}
}

func TestMessages_AppendHead(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	frame := random(rng, PublishFrame{}).(PublishFrame)
	var w pack.Writer
	head := frame
	head.Publishes = nil
	head.AppendHead(&w, len(frame.Publishes))
	for _, p := range frame.Publishes {
		p.Append(&w)
	}
	if !bytes.Equal(w.Bytes(), encode(frame)) {
		t.Error("a publish frame made of its parts differs")
	}
	deliver := random(rng, Deliver{}).(Deliver)
	w.Reset()
	deliver.AppendHead(&w, len(deliver.Deliveries))
	for _, d := range deliver.Deliveries {
		d.Append(&w)
	}
	if !bytes.Equal(w.Bytes(), encode(deliver)) {
		t.Error("a deliver made of its parts differs")
	}
}

func TestMessages_TruncatedOrLonger_AreMalformed(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for _, c := range codecs {
		b := encode(random(rng, c.zero))
		for n := range b {
			if _, err := c.decode(b[:n]); !errors.Is(err, pack.ErrMalformed) {
				t.Fatalf("%s cut at %d of %d: %v", c.name, n, len(b), err)
			}
		}
		if _, err := c.decode(append(b, 0)); !errors.Is(err, pack.ErrMalformed) {
			t.Fatalf("%s with a byte more: %v", c.name, err)
		}
		// An array with a field more or less is another message.
		b[0]++
		if _, err := c.decode(append(b, 0)); !errors.Is(err, pack.ErrMalformed) {
			t.Fatalf("%s with a field more: %v", c.name, err)
		}
	}
}

// TestDecode_LengthBombs promises the longest lists in few bytes, at every
// place where a list can be. What is allocated must stay near what was sent.
func TestDecode_LengthBombs(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for _, c := range codecs {
		good := encode(random(rng, c.zero))
		for at := range good {
			for _, bomb := range [][]byte{{0xdd, 0xff, 0xff, 0xff, 0xff}, {0xdc, 0xff, 0xff}, {0xc6, 0xff, 0xff, 0xff, 0xff}, {0xdb, 0x7f, 0xff, 0xff, 0xff}, {0xc0}} {
				b := append(bytes.Clone(good[:at]), bomb...)
				b = append(b, make([]byte, 10)...)
				var before, after runtime.MemStats
				if at%16 == 0 { // reading the statistics stops the world
					runtime.ReadMemStats(&before)
				}
				// Inside a string a bomb is only text, so some are accepted.
				if _, err := c.decode(b); err != nil && !errors.Is(err, pack.ErrMalformed) {
					t.Fatalf("%s with % x at %d: %v", c.name, bomb, at, err)
				}
				if at%16 == 0 {
					runtime.ReadMemStats(&after)
					if grown := after.TotalAlloc - before.TotalAlloc; grown > 256<<10 {
						t.Fatalf("%s with % x at %d: %d bytes allocated", c.name, bomb, at, grown)
					}
				}
			}
		}
	}
}

// TestDecode_AllocatesASmallMultiple decodes the lists that cost most memory a
// byte: as many of the shortest elements as a megabyte holds.
func TestDecode_AllocatesASmallMultiple(t *testing.T) {
	const n = PublishesMax
	for _, m := range []any{
		PublishFrame{Publishes: make([]Publish, n)},
		PublishFrame{Publishes: []Publish{{Messages: make([]Message, MessagesMax)}}},
		PublishReply{Results: make([]PublishResult, n)},
		Attach{Unsettled: make([]Range, n)},
		Deliver{Deliveries: make([]Delivery, n)},
		QueuesReply{Queues: make([]QueueInfo, QueuesMax)},
		Settle{Items: make([]SettleItem, n)},
		PeekReply{Messages: make([]MessageInfo, PeekMax)},
		Edit{Places: make([]Place, EditPlacesMax)},
		Seal{Sequences: make([]uint64, n)},
	} {
		b := encode(m)
		i := 0
		for codecs[i].name != reflect.TypeOf(m).Name() {
			i++
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := codecs[i].decode(b); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > uint64(16*len(b)) {
			t.Errorf("%T of %d bytes: %d bytes allocated", m, len(b), grown)
		}
	}
}

// TestDecode_Limits has each limit of a publish, at the limit and one past it.
func TestDecode_Limits(t *testing.T) {
	text := func(n int) string { return strings.Repeat("x", n) }
	one := func(m Message) any {
		return PublishFrame{Publishes: []Publish{{Messages: []Message{m}}}}
	}
	for name, c := range map[string]struct {
		most int
		make func(n int) any
	}{
		"publishes":    {PublishesMax, func(n int) any { return PublishFrame{Publishes: make([]Publish, n)} }},
		"messages":     {MessagesMax, func(n int) any { return PublishFrame{Publishes: []Publish{{Messages: make([]Message, n)}}} }},
		"headers":      {HeadersMax, func(n int) any { return one(Message{Headers: make([]Header, n)}) }},
		"header name":  {HeaderNameBytesMax, func(n int) any { return one(Message{Headers: []Header{{Name: text(n)}}}) }},
		"header value": {HeaderValueBytesMax, func(n int) any { return one(Message{Headers: []Header{{Value: text(n)}}}) }},
		"biz-id":       {BizIDBytesMax, func(n int) any { return one(Message{BizID: text(n)}) }},
		"ordering key": {OrderingKeyBytesMax, func(n int) any { return one(Message{OrderingKey: text(n)}) }},
		"queue name":   {QueueNameBytesMax, func(n int) any { return PublishFrame{Queue: text(n)} }},
	} {
		if _, err := DecodePublishFrame(encode(c.make(c.most))); err != nil {
			t.Errorf("%s at the limit: %v", name, err)
		}
		if _, err := DecodePublishFrame(encode(c.make(c.most + 1))); !errors.Is(err, pack.ErrMalformed) {
			t.Errorf("%s past the limit: %v", name, err)
		}
	}
	if _, err := DecodeSeal(encode(Seal{Sequences: make([]uint64, SequencesMax)})); err != nil {
		t.Error(err)
	}
	if _, err := DecodeSeal(encode(Seal{Sequences: make([]uint64, SequencesMax+1)})); !errors.Is(err, pack.ErrMalformed) {
		t.Errorf("sequences past the limit: %v", err)
	}
}

func TestHelloVersion_ReadsHellosOfOtherVersions(t *testing.T) {
	var w pack.Writer
	w.Array(5)
	w.Uint(9)
	w.Str("a client of the future")
	w.Bool(true)
	w.Array(0)
	w.Uint(1)
	if v, err := HelloVersion(w.Bytes()); v != 9 || err != nil {
		t.Fatal(v, err)
	}
	for _, b := range [][]byte{nil, {0x90}, {0x91, 0xa0}, {0xc0}, {0xdd, 0xff, 0xff, 0xff, 0xff}} {
		if _, err := HelloVersion(b); !errors.Is(err, pack.ErrMalformed) {
			t.Errorf("% x: %v", b, err)
		}
	}
}

// FuzzDecode gives any bytes to every decoder. What is accepted must encode to
// something that decodes to the same.
func FuzzDecode(f *testing.F) {
	rng := rand.New(rand.NewPCG(11, 12))
	for i, c := range codecs {
		f.Add(uint8(i), encode(c.zero))
		f.Add(uint8(i), encode(random(rng, c.zero)))
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		c := codecs[int(which)%len(codecs)]
		m, err := c.decode(b)
		if err != nil {
			if !errors.Is(err, pack.ErrMalformed) {
				t.Fatalf("%s: %v", c.name, err)
			}
			return
		}
		again, err := c.decode(encode(m))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%s: %+v, again %+v, %v", c.name, m, again, err)
		}
	})
}
