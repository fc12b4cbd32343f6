//! A disk that boots from BIOS and from UEFI, made of files alone: no loop device, no mount.
//!
//! | sectors from | partition |
//! |---|---|
//! | 0 | GRUB's boot sector and the GPT |
//! | 2048 | GRUB for BIOS |
//! | 4096 | the EFI system partition with GRUB for UEFI |
//! | 135168 | the root file system, last so that it can grow |

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::image::inside;
use crate::shell::Step;

/// The root file system's name, in every image: GRUB and fstab find it by that.
pub(crate) const ROOT_UUID: &str = "2d8f6a54-5a0c-4c0e-9d55-9a6f5a4a5601";
/// The EFI system partition's number, as FAT has them.
const ESP_ID: u32 = 0xAD17_0001;
const DISK_UUID: &str = "2d8f6a54-5a0c-4c0e-9d55-9a6f5a4a5600";

const SECTOR: u64 = 512;
const BIOS: u64 = 2048;
const ESP: u64 = 4096;
const ROOT: u64 = 135_168;
const ROOT_SECTORS: u64 = 3 << 21;
/// The second copy of the GPT lies behind the last partition.
const BEHIND: u64 = 2048;

/// What GRUB does before it reads its configuration.
const EARLY: &str = "search --no-floppy --fs-uuid --set=root @ROOT@\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n";
const MODULES: [&str; 13] = [
    "biosdisk",
    "normal",
    "configfile",
    "search",
    "search_fs_uuid",
    "part_gpt",
    "ext2",
    "linux",
    "echo",
    "test",
    "serial",
    "terminal",
    "sleep",
];

/// Where Debian's packages have the programs of UEFI, and where they lie on the EFI system partition: the shim, with
/// Microsoft's signature, starts GRUB, with Debian's, which looks for its configuration in the last place.
const SIGNED: [(&str, &str); 2] = [
    ("usr/lib/shim/shimx64.efi.signed", "::/EFI/BOOT/BOOTX64.EFI"),
    ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "::/EFI/BOOT/grubx64.efi"),
];
const EFI_CONFIGURATION: &str = "::/EFI/debian/grub.cfg";

/// GRUB, as it lies on the disk.
pub(crate) struct Boot {
    /// The boot sector of BIOS.
    sector: Vec<u8>,
    /// What that loads.
    core: Vec<u8>,
    /// The files of UEFI, and where they go.
    efi: Vec<(&'static str, Vec<u8>)>,
}

/// The EFI system partition's name, as `blkid` writes it.
pub(crate) fn esp_uuid() -> String {
    format!("{:04X}-{:04X}", ESP_ID >> 16, ESP_ID & 0xFFFF)
}

/// Has the GRUB in `root` make its image for BIOS, and takes the signed ones for UEFI.
pub(crate) fn boot_images(root: &Path) -> Result<Boot> {
    let early = EARLY.replace("@ROOT@", ROOT_UUID);
    fs::write(root.join("tmp/early.cfg"), &early)?;
    let options =
        ["grub-mkimage", "-O", "i386-pc", "-p", "/boot/grub", "-c", "/tmp/early.cfg", "-o", "/tmp/grub"];
    inside(root, "make GRUB's image", &[&options[..], &MODULES[..]].concat())?;
    let mut efi = vec![(EFI_CONFIGURATION, early.into_bytes())];
    for (from, to) in SIGNED {
        efi.push((to, fs::read(root.join(from)).with_context(|| from.to_owned())?));
    }
    Ok(Boot {
        sector: fs::read(root.join("usr/lib/grub/i386-pc/boot.img"))?,
        core: fs::read(root.join("tmp/grub"))?,
        efi,
    })
}

/// Makes the disk `file` with the files below `root`.
pub(crate) fn make(root: &Path, boot: &Boot, epoch: u64, file: &Path) -> Result<()> {
    let (esp, system) = (file.with_extension("esp"), file.with_extension("root"));
    system_partition(root, epoch, &system)?;
    efi_partition(&boot.efi, epoch, &esp)?;
    let _ = fs::remove_file(file);
    let disk = File::options().read(true).write(true).create_new(true).open(file)?;
    disk.set_len((ROOT + ROOT_SECTORS + BEHIND) * SECTOR)?;
    partition(file)?;
    let (sector, core) = for_bios(boot)?;
    disk.write_all_at(&sector[..440], 0)?;
    disk.write_all_at(&core, BIOS * SECTOR)?;
    copy(&esp, &disk, ESP * SECTOR)?;
    copy(&system, &disk, ROOT * SECTOR)?;
    fs::remove_file(esp)?;
    fs::remove_file(system)?;
    Ok(())
}

fn partition(file: &Path) -> Result<()> {
    const BIOS_TYPE: &str = "21686148-6449-6E6F-744E-656564454649";
    const ESP_TYPE: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
    const ROOT_TYPE: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";
    let mut script = format!("label: gpt\nlabel-id: {DISK_UUID}\n");
    for (number, start, sectors, kind, name) in [
        (2, BIOS, ESP - BIOS, BIOS_TYPE, "bios"),
        (3, ESP, ROOT - ESP, ESP_TYPE, "esp"),
        (4, ROOT, ROOT_SECTORS, ROOT_TYPE, "root"),
    ] {
        let uuid = format!("{}{number}", &DISK_UUID[..DISK_UUID.len() - 1]);
        script += &format!("start={start}, size={sectors}, type={kind}, uuid={uuid}, name={name}\n");
    }
    let mut child = Command::new("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(file)
        .stdin(Stdio::piped())
        .spawn()
        .context("sfdisk could not be started")?;
    child.stdin.take().context("sfdisk has no input")?.write_all(script.as_bytes())?;
    ensure!(child.wait()?.success(), "sfdisk did not partition {}", file.display());
    Ok(())
}

/// The boot sector, told where the rest lies, and the rest, told where its own second sector lies. That is what
/// `grub-bios-setup` writes, which wants a device.
fn for_bios(boot: &Boot) -> Result<(Vec<u8>, Vec<u8>)> {
    const KERNEL_SECTOR: usize = 0x5C;
    const DRIVE_CHECK: usize = 0x66;
    const BLOCK_LIST: usize = 0x1F4;
    let (mut sector, mut core) = (boot.sector.clone(), boot.core.clone());
    let room = ((ESP - BIOS) * SECTOR) as usize;
    ensure!(sector.len() == 512 && core.len() > 512 && core.len() <= room, "GRUB's images have no such size");
    sector[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&BIOS.to_le_bytes());
    // Two instructions that do nothing, in place of a jump that believes BIOS' number of the drive.
    sector[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(BIOS + 1).to_le_bytes());
    Ok((sector, core))
}

fn efi_partition(files: &[(&str, Vec<u8>)], epoch: u64, file: &Path) -> Result<()> {
    let _ = fs::remove_file(file);
    let tool = |name: &str| {
        let mut command = Command::new(name);
        command.env("SOURCE_DATE_EPOCH", epoch.to_string()).env("TZ", "UTC");
        command
    };
    let mut make = tool("mkfs.vfat");
    make.args(["--invariant", "-F", "32", "-n", "EFI", "-i", &format!("{ESP_ID:08x}"), "-C"]).arg(file);
    make.arg(((ROOT - ESP) / 2).to_string());
    Step::new("make the EFI system partition", make, "install dosfstools").quiet()?;
    let mut directories = tool("mmd");
    directories.arg("-i").arg(file).args(["::/EFI", "::/EFI/BOOT", "::/EFI/debian"]);
    Step::new("make its directories", directories, "install mtools").quiet()?;
    let source = file.with_extension("part");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(epoch);
    for (place, content) in files {
        fs::write(&source, content)?;
        File::options().write(true).open(&source)?.set_modified(time)?;
        let mut copy = tool("mcopy");
        copy.arg("-m").arg("-i").arg(file).arg(&source).arg(place);
        Step::new("copy what UEFI starts to it", copy, "install mtools").quiet()?;
    }
    fs::remove_file(source)?;
    Ok(())
}

fn system_partition(root: &Path, epoch: u64, file: &Path) -> Result<()> {
    let _ = fs::remove_file(file);
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-t", "ext4", "-L", "adit", "-U", ROOT_UUID, "-O", "^metadata_csum,^orphan_file", "-d"]);
    make.arg(root).args(["-E", &format!("hash_seed={ROOT_UUID},lazy_itable_init=0,nodiscard")]);
    make.arg(file).arg(format!("{}k", ROOT_SECTORS / 2)).env("E2FSPROGS_FAKE_TIME", epoch.to_string());
    Step::new("make the root file system", make, "read mke2fs's message above; is there room below target?")
        .quiet()?;
    let disk = File::options().read(true).write(true).open(file)?;
    set_times(&disk, epoch).with_context(|| format!("in {}", file.display()))
}

/// Gives every inode of an ext4 without checksums of inodes the time `epoch` as that of its last access and change, which mke2fs
/// takes from the files as they happen to be.
fn set_times(disk: &File, epoch: u64) -> Result<()> {
    const MAGIC: u16 = 0xEF53;
    let epoch = u32::try_from(epoch)?.to_le_bytes();
    let mut superblock = [0; 1024];
    disk.read_exact_at(&mut superblock, 1024)?;
    let word = |at: usize| u64::from(u32::from_le_bytes([0, 1, 2, 3].map(|i| superblock[at + i])));
    let half = |at: usize| u16::from_le_bytes([superblock[at], superblock[at + 1]]);
    if half(0x38) != MAGIC {
        bail!("there is no ext4");
    }
    let (inodes, per_group, block) = (word(0x00), word(0x28), 1024u64 << word(0x18));
    let (inode_size, descriptor) = (u64::from(half(0x58)), u64::from(half(0xFE)).max(32));
    let table = if block == 1024 { 2 * block } else { block };
    for group in 0..inodes.div_ceil(per_group) {
        let mut entry = vec![0; descriptor as usize];
        disk.read_exact_at(&mut entry, table + group * descriptor)?;
        let part = |at: usize| u64::from(u32::from_le_bytes([0, 1, 2, 3].map(|i| entry[at + i])));
        let place = part(0x08) | if descriptor >= 64 { part(0x28) << 32 } else { 0 };
        let mut inodes = vec![0; (per_group * inode_size) as usize];
        disk.read_exact_at(&mut inodes, place * block)?;
        for inode in inodes.chunks_exact_mut(inode_size as usize) {
            // Nobody has it.
            if inode[..2] == [0, 0] {
                continue;
            }
            inode[0x08..0x0C].copy_from_slice(&epoch);
            inode[0x0C..0x10].copy_from_slice(&epoch);
            if inode_size > 128 {
                // Fractions of seconds: of the change, the contents' change and the access.
                inode[0x84..0x90].fill(0);
            }
        }
        disk.write_all_at(&inodes, place * block)?;
    }
    Ok(())
}

/// Copies a file into the disk and leaves holes where it is empty.
fn copy(from: &PathBuf, disk: &File, offset: u64) -> Result<()> {
    let mut file = File::open(from)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let size = piece.len().min((length - at) as usize);
        file.read_exact(&mut piece[..size])?;
        if piece[..size].iter().any(|octet| *octet != 0) {
            disk.write_all_at(&piece[..size], offset + at)?;
        }
        at += size as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_sector_and_what_it_loads_are_told_where_they_lie() {
        let boot = Boot { sector: vec![1; 512], core: vec![2; 1024], efi: Vec::new() };
        let (sector, core) = for_bios(&boot).unwrap();
        assert_eq!(sector[0x5C..0x64], 2048u64.to_le_bytes());
        assert_eq!(sector[0x66..0x68], [0x90, 0x90]);
        assert_eq!(core[0x1F4..0x1FC], 2049u64.to_le_bytes());
        assert_eq!(core[0x1FC..0x200], [2; 4]);
        assert!(
            for_bios(&Boot { core: vec![0; 2 << 20], ..boot }).is_err(),
            "it fits before the next partition"
        );
    }

    #[test]
    fn partitions_follow_each_other_and_the_esp_is_named_as_blkid_does() {
        const { assert!(BIOS < ESP && ESP < ROOT) };
        assert_eq!(esp_uuid(), "AD17-0001");
    }
}
