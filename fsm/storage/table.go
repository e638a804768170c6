package storage

import (
	"context"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// tableBytes is about how large the tables are that a checkpoint makes of what
	// is in memory, with placeBytes for each body.
	tableBytes = 16 << 20
	placeBytes = 40
	// tableBytesMin: fewer bodies go through Pebble's own memory, where they meet
	// others, since tables of a few bodies would become many.
	tableBytesMin = 1 << 20
	// tableFile is in the live directory while a table is being written. Pebble does
	// not know the name, and no checkpoint has it.
	tableFile = "table.tmp"
)

// writeTable writes bodies as a table of its own and gives it to Pebble. A batch
// would copy each body into the batch, into Pebble's memory and out of it again,
// all of it memory that nobody has touched before: that was two fifths of what a
// message cost that nobody reads.
//
// It takes part in the order of changes like a batch: the caller has turn, and
// open is held.
func (s *Pebble) writeTable(bodies []written, pace Pace) error {
	slices.SortFunc(bodies, func(a, b written) int { return a.place.compare(b.place) })
	path := s.o.FS.PathJoin(s.o.Dir, tableFile)
	f, err := s.o.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if s.tableBuf == nil {
		s.tableBuf = tableBuffer()
	}
	w := sstable.NewWriter(newTableWriter(f, s.tableBuf, pace), s.tables)
	k := make([]byte, 0, keyBytes)
	for _, b := range bodies {
		k = appendKey(k[:0], b.lane, b.offset)
		if err = w.Set(k, b.value()); err != nil {
			break
		}
	}
	if err = errors.Join(err, w.Close()); err != nil { // it syncs, too
		return err
	}
	return s.db.Ingest(context.Background(), []string{path})
}

// tableOptions are those of the tables that Pebble writes itself.
func tableOptions(db *pebble.DB, o *pebble.Options) sstable.WriterOptions {
	o.EnsureDefaults()
	return o.MakeWriterOptions(0, db.TableFormat())
}

// tableCompression has a name that Pebble's tools know, and leaves blocks as they are where bodies are random, compressed or
// encrypted: a sample of blocks tells, instead of an attempt at each, which was a
// sixth of what a table of such bodies costs.
func tableCompression() *sstable.CompressionProfile {
	const reduction = 12 // per cent, Pebble's own bound
	snappy, none := sstable.SnappyCompression.DataBlocks, sstable.NoCompression.DataBlocks
	return &sstable.CompressionProfile{Name: "Snappy", DataBlocks: snappy, ValueBlocks: snappy, OtherBlocks: none,
		MinReductionPercent: reduction, AdaptiveReductionCutoffPercent: reduction}
}
