// Package pack writes and reads msgpack by hand over byte slices.
//
// It is the only door through which bytes from a socket, a log or a snapshot
// are decoded. The reader never believes a length: each one is compared with
// the bytes that remain before anything is allocated, nothing recurses, and
// what is read as bytes is a view into the input and not a copy. So five
// hostile bytes cost five bytes.
//
// Only the part of msgpack that onceq speaks is understood: integers, booleans,
// str, bin and arrays. Nil, floats, maps and extensions are malformed.
// Integers may come in any width, as the format allows; the writer always
// chooses the shortest.
//
// Why not the library's Encoder and Decoder: they write and read each primitive
// through an interface, and a Decoder is an object of some size to allocate or
// to pool for each payload, while a Reader lives on the stack. On a path that
// decodes a dozen primitives a message, several times on each node, this is
// the larger part of the cost (see BenchmarkRead). Against it stands that the
// byte layout is ours to get right; so the codes come from the library, and the
// tests hold writer and reader to be equal to the library for every
// primitive at every boundary.
package pack
