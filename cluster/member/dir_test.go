package member

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
)

func openDir(t *testing.T, path, name string, key []byte) *Dir {
	t.Helper()
	d, err := OpenDir(DirConfig{Path: path, Name: name, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func wantOpenError(t *testing.T, cfg DirConfig, want error, words ...string) {
	t.Helper()
	d, err := OpenDir(cfg)
	if err == nil {
		d.Close()
		t.Fatalf("opened, want %v", want)
	}
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
}

func TestOpenDir_Again_KeepsIdentityAndCountsStarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	d := openDir(t, path, "n1", nil)
	first := d.Identity()
	if NameOf(first.ServerID) != "n1" || string(first.ServerID) == "n1" {
		t.Fatalf("server id %q", first.ServerID)
	}
	if err := d.setAddresses("127.0.0.1:7450", "127.0.0.1:7946"); err != nil {
		t.Fatal(err)
	}
	if err := d.setPeers([]Peer{testPeer("n2")}); err != nil {
		t.Fatal(err)
	}
	want := d.Identity()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal("second Close:", err)
	}
	again := openDir(t, path, "", nil).Identity() // the name is in the file
	if again.Start <= first.Start {
		t.Errorf("start %d after %d", again.Start, first.Start)
	}
	again.Start = want.Start
	if !bytes.Equal(encodeIdentity(again), encodeIdentity(want)) {
		t.Errorf("identity changed:\n%+v\n%+v", again, want)
	}
}

func TestOpenDir_Wiped_GetsANewServerID(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, "n1", nil)
	old := d.Identity().ServerID
	d.Close()
	for _, f := range []string{identityFile, lockFile} {
		if err := os.Remove(filepath.Join(path, f)); err != nil {
			t.Fatal(err)
		}
	}
	id := openDir(t, path, "n1", nil).Identity().ServerID
	if id == old || NameOf(id) != NameOf(old) {
		t.Errorf("server id %q after %q", id, old)
	}
}

func TestOpenDir_InUse_SaysWho(t *testing.T) {
	path := t.TempDir()
	openDir(t, path, "n1", nil)
	wantOpenError(t, DirConfig{Path: path, Name: "n1"}, ErrDirLocked, path, "stop that process")
}

func TestOpenDir_OfAnotherNode_IsRefused(t *testing.T) {
	path := t.TempDir()
	openDir(t, path, "n1", nil).Close()
	wantOpenError(t, DirConfig{Path: path, Name: "n2"}, ErrOtherNode, `"n1"`, `"n2"`)
	openDir(t, path, "n1", nil) // the refusal let go of the lock
}

func TestOpenDir_OfAnotherCluster_IsRefused(t *testing.T) {
	path := t.TempDir()
	key := bytes.Repeat([]byte{1}, SecretBytes)
	d := openDir(t, path, "n1", key)
	c := testCluster("n1", "n2", "n3")
	c.Keyed = true
	copy(c.Secret[:], key)
	if err := d.update(func(id *Identity) error { id.Stage, id.Cluster = StageMember, c; return nil }); err != nil {
		t.Fatal(err)
	}
	d.Close()
	wantOpenError(t, DirConfig{Path: path, Name: "n1", Key: bytes.Repeat([]byte{2}, SecretBytes)}, ErrOtherCluster, c.ID)
	if k := openDir(t, path, "n1", nil).operatorKey(); !bytes.Equal(k, key) {
		t.Errorf("the operator's key is forgotten: %x", k)
	}
}

func TestOpenDir_FilesButNoIdentity_IsRefused(t *testing.T) {
	path := t.TempDir()
	os.WriteFile(filepath.Join(path, "node.log"), nil, 0o600) // a log is no state
	os.Mkdir(filepath.Join(path, "groups"), 0o700)
	wantOpenError(t, DirConfig{Path: path, Name: "n1"}, ErrNoIdentity, `"groups"`, "wipe")
	os.WriteFile(filepath.Join(path, "ballast"), nil, 0o600) // as a node has it that is not on loopback
	wantOpenError(t, DirConfig{Path: path, Name: "n1"}, ErrNoIdentity, `"groups"`, "wipe")
	os.Remove(filepath.Join(path, "groups"))
	wantOpenError(t, DirConfig{Path: path, Name: "n1"}, ErrNotDataDir, `"ballast"`)
	os.Remove(filepath.Join(path, "ballast"))
	openDir(t, path, "n1", nil)
}

// TestOpenDir_SomebodyElses_IsLeftAsItIs: most likely its name was mistyped.
func TestOpenDir_SomebodyElses_IsLeftAsItIs(t *testing.T) {
	path := t.TempDir()
	os.WriteFile(filepath.Join(path, "thesis.tex"), nil, 0o600)
	groups := filepath.Join(path, "groups")
	os.Mkdir(groups, 0o700) // others have a folder of that name, too
	wantOpenError(t, DirConfig{Path: path, Name: "n1"}, ErrNotDataDir, `"thesis.tex"`, "choose an empty")
	os.Remove(groups)
	_, err := OpenDir(DirConfig{Path: path, Name: "n1", Locked: func(bool) error { t.Error("locked"); return nil }})
	if !errors.Is(err, ErrNotDataDir) || !strings.Contains(err.Error(), `"thesis.tex"`) || strings.Contains(err.Error(), "wipe") {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(path); err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
}

// A directory that a file system was mounted on is empty, but for what all of those have.
func TestOpenDir_FreshMountPoint_IsTaken(t *testing.T) {
	path := t.TempDir()
	os.Mkdir(filepath.Join(path, "lost+found"), 0o700)
	openDir(t, path, "n1", nil)
}

// Every flipped bit is found, and every shortened file.
func TestOpenDir_DamagedIdentity_IsRefused(t *testing.T) {
	path := t.TempDir()
	openDir(t, path, "n1", nil).Close()
	file := filepath.Join(path, identityFile)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		for _, damaged := range [][]byte{append(append(append([]byte(nil), whole[:i]...), whole[i]^1), whole[i+1:]...), whole[:i]} {
			if _, err := decodeIdentity(damaged); err == nil {
				t.Fatalf("damage at %d was not found", i)
			}
		}
	}
	os.WriteFile(file, whole[:len(whole)-1], 0o600)
	wantOpenError(t, DirConfig{Path: path, Name: "n1"}, ErrIdentityDamaged, file)
}

// A crash between the temporary file and the rename leaves the old identity.
func TestOpenDir_HalfWrittenTemporaryFile_IsIgnored(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, "n1", nil)
	id := d.Identity().ServerID
	d.Close()
	os.WriteFile(filepath.Join(path, identityTempFile), []byte("onceqid\n"), 0o600)
	if got := openDir(t, path, "n1", nil).Identity().ServerID; got != id {
		t.Errorf("server id %q, want %q", got, id)
	}
}

// What could not be written must not be seen, nor anything after it.
func TestDir_WriteFails_NothingChangesAnyMore(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, "n1", nil)
	before := d.Identity()
	if err := os.Mkdir(filepath.Join(path, identityTempFile), 0o700); err != nil { // cannot be opened for writing
		t.Fatal(err)
	}
	if err := d.setAddresses("127.0.0.1:1", ""); err == nil {
		t.Fatal("written into a directory")
	}
	os.Remove(filepath.Join(path, identityTempFile))
	if err := d.setAddresses("127.0.0.1:1", ""); err == nil {
		t.Fatal("written after a failure")
	}
	if after := d.Identity(); after.Address != before.Address {
		t.Errorf("address %q is seen and not stored", after.Address)
	}
}

func TestDir_Renew_IsAnotherServerOfTheSameNode(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, "n1", nil)
	if err := d.Renew(); err == nil {
		t.Error("renewed what belongs to no cluster")
	}
	c := testCluster("n1", "n2")
	if err := d.update(func(id *Identity) error { id.Stage, id.Cluster = StageMember, c; return nil }); err != nil {
		t.Fatal(err)
	}
	old := d.Identity()
	if err := d.Renew(); err != nil {
		t.Fatal(err)
	}
	d.Close()
	id := openDir(t, path, "n1", nil).Identity()
	if id.ServerID == old.ServerID || NameOf(id.ServerID) != "n1" || id.Stage != StageEmpty || id.Former != c.ID {
		t.Errorf("renewed: %+v", id)
	}
}

func TestReadKeyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	raw := bytes.Repeat([]byte{7}, SecretBytes)
	for name, c := range map[string]struct {
		content string
		ok      bool
	}{
		"hex":   {strings.Repeat("07", SecretBytes) + "\n", true},
		"raw":   {string(raw), true},
		"short": {"0707", false},
		"empty": {"", false},
		"long":  {strings.Repeat("07", SecretBytes) + "0", false},
	} {
		os.WriteFile(file, []byte(c.content), 0o600)
		key, err := ReadKeyFile(file)
		if (err == nil) != c.ok || c.ok && !bytes.Equal(key, raw) {
			t.Errorf("%s: %x, %v", name, key, err)
		}
	}
}

func TestNameOf(t *testing.T) {
	for id, want := range map[raft.ServerID]string{
		"n1-3f9a0c2b77d1": "n1", "a-b-3f9a0c2b77d1": "a-b", "n1": "n1", "n1-xyz": "n1-xyz",
		"-3f9a0c2b77d1": "-3f9a0c2b77d1", "n1-3f9a0c2b77dg": "n1-3f9a0c2b77dg",
	} {
		if got := NameOf(id); got != want {
			t.Errorf("NameOf(%q) = %q, want %q", id, got, want)
		}
	}
}

func TestMeta_AtEveryLimit_FitsIntoGossip(t *testing.T) {
	name := strings.Repeat("n", nameBytesMax)
	long := strings.Repeat("h", addressBytesMax-5) + ":7450"
	m := meta{
		Peer:  Peer{Name: name, ServerID: newServerID(name), Address: long, Gossip: long},
		Start: 1 << 63, Cluster: strings.Repeat("c", clusterBytesMax), Stage: StageMember,
	}
	b := m.encode()
	if len(b) > memberlist.MetaMaxSize {
		t.Fatalf("%d bytes, limit %d", len(b), memberlist.MetaMaxSize)
	}
	got, err := decodeMeta(b)
	if err != nil || got != m {
		t.Errorf("%+v, %v", got, err)
	}
}

func testPeer(name string) Peer {
	return Peer{Name: name, ServerID: raft.ServerID(name + "-000000000000"), Address: name + ":7450", Gossip: "10.0.0.1:7946"}
}

func testCluster(names ...string) ClusterInfo {
	c := ClusterInfo{ID: "c1", Incarnation: 7}
	for _, n := range names {
		c.Members = append(c.Members, testPeer(n))
	}
	sortPeers(c.Members)
	c.Minter = c.Members[0].ServerID
	return c
}
