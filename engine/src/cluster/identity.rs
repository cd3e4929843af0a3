//! The file `node` in the data directory: cluster, node, what is fixed at bootstrap, and the boot number.
//!
//! It is one block, rewritten at every start under a new boot number: written to `node.tmp`, synced, renamed,
//! and its directory synced. So after a crash it is the old or the new one. `docs/formats.md` has the bytes.

use std::path::Path;
use std::rc::Rc;

use crate::env::disk::BLOCK_BYTES;
use crate::env::{Disk, OpenMode, Random};
use crate::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SHARDS_MAX};
use crate::log::format::BootNumber;

/// Name of the file.
pub const IDENTITY_FILE: &str = "node";
/// Name of one that is being written.
pub const TEMPORARY_FILE: &str = "node.tmp";
const MAGIC: &[u8; 8] = b"OSTRNODE";
const FORMAT_VERSION: u32 = 1;
/// Bytes in use at the start of the block; the rest is zero.
pub const CONTENT_BYTES: usize = 64;

/// Who this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Cluster, high and low half, drawn at random at bootstrap.
    pub cluster: (u64, u64),
    /// Node, drawn at random when its data directory was made.
    pub node: u64,
    /// Shards of the cluster, a power of two, fixed at bootstrap.
    pub shards: u32,
    /// Length of a log segment in bytes, fixed when the data directory was made.
    pub segment_bytes: u64,
    /// This start.
    pub boot: BootNumber,
    /// Logs `0..logs` hold shards since the last start that came to serve; zero before the first. One that is
    /// missing is lost data.
    pub logs: u32,
}

/// What the operator asks for; `None` takes what the data directory has, or the default for a new one.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Shards, if named.
    pub shards: Option<u32>,
    /// Shards of a new cluster when none are named.
    pub shards_default: u32,
    /// Segment length, if named.
    pub segment_bytes: Option<u64>,
    /// Segment length of a new data directory when none is named.
    pub segment_bytes_default: u64,
}

/// Reads the identity and raises its boot number durably, or makes a new one. Returns it and whether it is new.
///
/// # Errors
/// A sentence for the operator: a damaged or foreign file, another format, a setting that contradicts it.
pub async fn open_identity(
    disk: &dyn Disk,
    random: &dyn Random,
    data: &Path,
    wanted: Wanted,
) -> Result<(Identity, bool), String> {
    let failed = |what: &str, error: std::io::Error| format!("{what} {}: {error}", data.display());
    let entries = disk
        .list(data)
        .await
        .map_err(|error| failed("can't list", error))?;
    let exists = entries.iter().any(|entry| entry.name == IDENTITY_FILE);
    if entries.iter().any(|entry| entry.name == TEMPORARY_FILE) {
        disk.remove(&data.join(TEMPORARY_FILE))
            .await
            .map_err(|error| failed("can't clean up", error))?;
    }
    let mut identity = if exists {
        let found = read_identity(disk, data).await?;
        check_wanted(&found, wanted)?;
        found
    } else {
        if entries.iter().any(|entry| entry.is_dir && entry.name == "log") {
            return Err(format!(
                "{} holds a log but no file `{IDENTITY_FILE}`: it says which cluster the log belongs to. Restore \
                 that file, or start with an empty directory",
                data.display()
            ));
        }
        Identity {
            cluster: (random.next_u64(), random.next_u64() | 1),
            node: random.next_u64() | 1,
            shards: wanted.shards.unwrap_or(wanted.shards_default),
            segment_bytes: wanted.segment_bytes.unwrap_or(wanted.segment_bytes_default),
            boot: BootNumber(0),
            logs: 0,
        }
    };
    check_bounds(&identity)?;
    let boot = identity.boot.0.checked_add(1).ok_or_else(|| {
        format!(
            "the file `{IDENTITY_FILE}` in {} is damaged: no node was started so often",
            data.display()
        )
    })?;
    identity.boot = BootNumber(boot);
    write_identity(disk, data, &identity)
        .await
        .map_err(|error| failed("can't write the identity in", error))?;
    Ok((identity, !exists))
}

/// Notes durably that the shards are in logs `0..logs`.
///
/// # Errors
/// A sentence for the operator.
pub async fn note_logs(disk: &dyn Disk, data: &Path, identity: &Identity, logs: u32) -> Result<(), String> {
    if identity.logs == logs {
        return Ok(());
    }
    write_identity(disk, data, &Identity { logs, ..*identity })
        .await
        .map_err(|error| format!("can't write the identity in {}: {error}", data.display()))
}

fn check_wanted(found: &Identity, wanted: Wanted) -> Result<(), String> {
    if let Some(shards) = wanted.shards.filter(|shards| *shards != found.shards) {
        return Err(format!(
            "this cluster has {} shards since its bootstrap, {shards} were asked for: leave out the number of \
             shards, or start a new cluster in another directory",
            found.shards
        ));
    }
    if let Some(bytes) = wanted.segment_bytes.filter(|bytes| *bytes != found.segment_bytes) {
        return Err(format!(
            "the log segments in this data directory have {} bytes, {bytes} were asked for: leave out the \
             segment size, or start with another directory",
            found.segment_bytes
        ));
    }
    Ok(())
}

fn check_bounds(identity: &Identity) -> Result<(), String> {
    if !identity.shards.is_power_of_two() || identity.shards > SHARDS_MAX {
        return Err(format!(
            "{} shards: the number must be a power of two, at most {SHARDS_MAX}",
            identity.shards
        ));
    }
    let bytes = identity.segment_bytes;
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) || !bytes.is_multiple_of(BLOCK_BYTES as u64)
    {
        return Err(format!(
            "segments of {bytes} bytes: the size must be a multiple of {BLOCK_BYTES} from {SEGMENT_BYTES_MIN} to \
             {SEGMENT_BYTES_MAX}"
        ));
    }
    Ok(())
}

/// Reads the identity.
///
/// # Errors
/// A sentence for the operator: the file can't be read, is damaged or foreign.
pub async fn read_identity(disk: &dyn Disk, data: &Path) -> Result<Identity, String> {
    let path = data.join(IDENTITY_FILE);
    let failed = |error: std::io::Error| format!("can't read {}: {error}", path.display());
    let file = disk.open(&path, OpenMode::Read).await.map_err(failed)?;
    let outcome = file.read_at(0, BLOCK_BYTES).await;
    file.close().await.map_err(failed)?;
    let block = outcome.map_err(failed)?;
    decode(block.bytes()).map_err(|finding| format!("{}: {finding}", path.display()))
}

async fn write_identity(disk: &dyn Disk, data: &Path, identity: &Identity) -> std::io::Result<()> {
    let temporary = data.join(TEMPORARY_FILE);
    let file = disk.open(&temporary, OpenMode::CreateNew).await?;
    let mut block = disk.allocate(BLOCK_BYTES);
    block.bytes_mut()[..CONTENT_BYTES].copy_from_slice(&encode(identity));
    let written = file.write_at(Rc::new(block), 0).await;
    let synced = if written.is_ok() {
        file.sync().await
    } else {
        written
    };
    let closed = file.close().await;
    synced.and(closed)?;
    disk.rename(&temporary, &data.join(IDENTITY_FILE)).await?;
    disk.sync_dir(data).await
}

fn encode(identity: &Identity) -> [u8; CONTENT_BYTES] {
    let mut bytes = [0; CONTENT_BYTES];
    bytes[0..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&identity.cluster.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&identity.cluster.1.to_le_bytes());
    bytes[32..40].copy_from_slice(&identity.node.to_le_bytes());
    bytes[40..44].copy_from_slice(&identity.shards.to_le_bytes());
    bytes[44..48].copy_from_slice(&identity.logs.to_le_bytes());
    bytes[48..56].copy_from_slice(&identity.segment_bytes.to_le_bytes());
    bytes[56..64].copy_from_slice(&identity.boot.0.to_le_bytes());
    let crc = checksum(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..CONTENT_BYTES])
}

/// Reads the file's block, or as much of it as there is.
///
/// # Errors
/// A sentence for the operator: the file is damaged, foreign, or of another format.
pub fn decode(block: &[u8]) -> Result<Identity, String> {
    if block.len() < CONTENT_BYTES {
        return Err(format!(
            "cut off: {} bytes of at least {CONTENT_BYTES}. Restore the file from a copy",
            block.len()
        ));
    }
    let u32_at = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"));
    if &block[0..8] != MAGIC {
        return Err("this is not an Ostrakon node file".into());
    }
    let version = u32_at(8);
    if version != FORMAT_VERSION {
        return Err(format!(
            "the data directory has format version {version}, this program reads version {FORMAT_VERSION}: use the \
             program that wrote it"
        ));
    }
    let (expected, found) = (u32_at(12), checksum(block));
    if expected != found {
        return Err(format!(
            "damaged: checksum expected {expected:#010x}, found {found:#010x}. Restore the file from a copy"
        ));
    }
    Ok(Identity {
        cluster: (u64_at(16), u64_at(24)),
        node: u64_at(32),
        shards: u32_at(40),
        segment_bytes: u64_at(48),
        boot: BootNumber(u64_at(56)),
        logs: u32_at(44),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Identity {
        Identity {
            cluster: (0x1111, 0x2222),
            node: 0x3333,
            shards: 64,
            segment_bytes: 64 << 20,
            boot: BootNumber(7),
            logs: 1,
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = encode(&sample());
        assert_eq!(&bytes[0..12], b"OSTRNODE\x01\0\0\0");
        assert_eq!(bytes[16..20], [0x11, 0x11, 0, 0]);
        assert_eq!(bytes[40..48], [64, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[48..56], [0, 0, 0, 4, 0, 0, 0, 0]);
        assert_eq!(bytes[56..64], [7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decode(&bytes), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let bytes = encode(&sample());
        for bit in 0..CONTENT_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn contradictions_are_refused_in_words() {
        let wanted = Wanted {
            shards: Some(8),
            shards_default: 8,
            segment_bytes: None,
            segment_bytes_default: 64 << 20,
        };
        let error = check_wanted(&sample(), wanted).expect_err("64 is not 8");
        assert!(
            error.contains("64 shards") && error.contains("8 were asked for"),
            "{error}"
        );
        let odd = Identity {
            shards: 3,
            ..sample()
        };
        assert!(
            check_bounds(&odd)
                .expect_err("not a power")
                .contains("power of two")
        );
    }
}
