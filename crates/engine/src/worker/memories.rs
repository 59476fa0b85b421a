//! Linear memories that are used again: what a task wrote is zeroed, not given back page by page.
//!
//! A fresh instance needs memory that is zero. Wasmtime's pool gives all pages of a memory back to the kernel, and
//! every page that the next task touches costs a fault, which is most of what a fresh instance costs
//! (`benches/README.md`). Here the pages that may have been touched are zeroed: those that are *open*
//! ([`fault_window`]), without asking, while these are few; else those of which the kernel says that they are there
//! (`mincore`). Where there are many, all are given back as well. `compile/choice.rs` decides which modules have them.
//!
//! # Why no byte survives
//! A slot is one private anonymous mapping that this process alone has: it never forks (seccomp), and
//! nothing else is mapped over it. Since all of it was last given back, only what is open, or was open while
//! it was zeroed, can have been touched. Between two tasks *every* page that is open is either zeroed or given
//! back; all others cannot be accessed, and are as an earlier reset left them: zero. Where the kernel is asked,
//! an open page is passed over only if `mincore` says that it is absent, with swap off. This is sound
//! if no absent page has contents. What the kernel says of a page of such a mapping (mm/mincore.c):
//!
//! - *Present*: resident. So are pages that are mapped without access for a moment (NUMA balancing), pages
//!   that were merged (KSM), the page of zeros, parts of large folios, and huge pages.
//! - *About to be moved* (compaction, NUMA, memory hot-remove), *poisoned*, or on a device: "always
//!   up to date", hence resident. This is what `PAGEMAP_SCAN` passes over, and why that is for tasks only that
//!   trust each other: under compaction without pause the scan missed pages, and `mincore` none
//!   (`benches/README.md`). Zeroing waits until a page has moved; a
//!   poisoned one ends this process.
//! - *Swapped out*, and no longer in the swap cache: absent, **with contents**. So swap must be off. That
//!   is asked of /proc/swaps before and after, for each such reset ([`Swaps`]): while a device is in use
//!   everything is given back. `swapoff` brings back all that was swapped out before its device
//!   goes from that list. What is left is a device that comes and goes, both, in the microsecond between
//!   the two looks, and takes a page of this memory along. Compressed swap (zram) is such a device, and
//!   zswap needs one.
//! - *Nothing*, or a mark without a page (`userfaultfd`, `MADV_GUARD_INSTALL`): no contents. Who puts such a mark there
//!   frees the page. `MADV_FREE`, which frees pages later, is not used here.
//!
//! The answer is taken page table by page table, under the locks of each, so that no state between two of
//! these is seen. Two races there were: until Linux 6.5 a huge page that begins to be moved during the
//! walk was "absent", so older kernels are not asked. And `khugepaged`, which empties a page
//! table while it fills a huge page, holds the address space's lock for writing, and `mincore` holds it for
//! reading. That no thread of this process writes meanwhile is plain: the memory's instance is
//! gone, and one thread runs tasks.
//!
//! Where something cannot be done, such as a call that fails, the whole slot is unmapped.

#[path = "memories/fault_window.rs"]
pub(super) mod fault_window;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex};

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use self::fault_window::{FAULT_WINDOW_BYTES_MAX, FaultWindow, WINDOW_BYTES_MAX};
use super::polling_page::OwnPage;
use crate::config::{GUARD_BYTES, MEMORIES_MAX, MEMORY_BYTES, Reserve};
use proto::safepoints::POLLING_PAGE_BYTES;
use proto::sync::Lock;

/// This is how the error begins where the system has no room for a memory.
pub(super) const NO_ROOM: &str = "no room for a memory";

/// A slot holds the memory and a guard on both sides.
const SLOT_BYTES: usize = GUARD_BYTES + MEMORY_BYTES + GUARD_BYTES;

/// A larger memory is given back whole, since asking about it would take longer than some faults do.
const SCANNED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A memory gives its pages back if more than this is resident in it, or in all that wait together. Zeroing would
/// be faster than faults even then, but a worker must not keep so much for nobody.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;
const KEPT_BYTES_IN_ALL_MAX: usize = 16 * 1024 * 1024;

/// A memory of at least this size asks for huge pages, so that a large payload costs one fault instead of 512. A
/// smaller memory does not, since it would be zeroed by two megabytes at a time. It is a multiple of such a page.
const HUGE_FROM_BYTES: usize = 4 * 1024 * 1024;

/// This much of a waiting slot stays accessible, and counts as data of this process.
const WAITING_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Every so many resets everything is given back, since what one task has touched would otherwise be zeroed for all
/// that follow it. This comes later where little is open, which is zeroed at once, and sooner where one task has
/// touched much more than is usual: some 20 resets that have less to zero pay for the faults.
const FORGET_EVERY: u32 = 64;
const FORGET_LITTLE_EVERY: u32 = 256;
const FORGET_LEAST_EVERY: u32 = 2048;
const LEAST_BYTES: usize = 64 * 1024;
const FORGET_EXCESS_EVERY: u32 = 8;

/// Pages that are never much.
const FEW_PAGES: usize = 16;

/// The memories of all engines of a worker.
#[derive(Clone)]
pub struct Memories(Arc<Shared>);

struct Shared {
    slots: Mutex<Slots>,
    swaps: Swaps,
    page: usize,
    /// Slots that are kept for the next instance. There is none where addresses are few.
    waiting_max: usize,
    /// The page that instances poll, if there is room for it.
    polling_page: Option<OwnPage>,
}

struct Slots {
    waiting: Vec<Slot>,
    lent: usize,
    /// The kernel's word on each page, a byte each: whether it is resident.
    residency: Vec<u8>,
}

impl Memories {
    /// Looks around in /proc; to be made before the process locks itself down.
    pub fn new(reserve: Reserve) -> Memories {
        // Without one, an instance that needs it is told that there is no room.
        let page = OwnPage::new(reserve).ok();
        Memories::with(Swaps::look(), if reserve == Reserve::None { 0 } else { MEMORIES_MAX }, page)
    }

    /// Returns the page that instances with such memories poll.
    pub(super) fn polling_page(&self) -> Option<OwnPage> {
        self.0.polling_page
    }

    fn with(swaps: Swaps, waiting_max: usize, polling_page: Option<OwnPage>) -> Memories {
        let page = rustix::param::page_size();
        let residency = vec![0; SCANNED_BYTES_MAX / page];
        let slots = Mutex::new(Slots { waiting: Vec::with_capacity(waiting_max), lent: 0, residency });
        Memories(Arc::new(Shared { slots, swaps, page, waiting_max, polling_page }))
    }
}

// SAFETY: a memory is `MEMORY_BYTES` of addresses with a guard on both sides, as the engine is told in
// `config.rs` and asks for; below its size it can be read and written and is zero, beyond it traps, and
// it never moves. Only the memory that was lent a slot refers to it.
unsafe impl MemoryCreator for Memories {
    fn new_memory(
        &self,
        ty: MemoryType,
        minimum: usize,
        _: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        if ty.page_size_log2() == 0 {
            let page = self.0.polling_page.ok_or_else(|| format!("{NO_ROOM}: that of safepoints"))?;
            return Ok(Box::new(PolledMemory(page)));
        }
        if minimum > MEMORY_BYTES || reserved != Some(MEMORY_BYTES) || guard > GUARD_BYTES {
            return Err(format!("no memory is made with {minimum} bytes of {reserved:?} and {guard}"));
        }
        let slot = self.0.take(minimum).map_err(|error| format!("{NO_ROOM}: {error}"))?;
        if self.0.polling_page.is_some_and(|page| page.overlaps(slot.start.as_ptr())) {
            return Err(format!("{NO_ROOM}: the system mapped it to where that of safepoints is"));
        }
        // The memory owns the slot, and gives it back whatever happens.
        let mut memory = Memory { slot: Some(slot), size: 0, minimum, shared: self.0.clone() };
        memory.grow(minimum).map_err(|error| format!("no memory of {minimum} bytes: {error}"))?;
        Ok(Box::new(memory))
    }
}

impl Shared {
    /// A slot that is zero, and accessible up to `bytes` at the most.
    fn take(&self, bytes: usize) -> io::Result<Slot> {
        let bytes = self.whole_pages(bytes);
        let mut slots = self.slots.hold();
        // The slot that fits best is taken, so that each of a module's several memories finds what it left.
        let fit = |slot: &Slot| (slot.accessible > bytes, bytes.abs_diff(slot.accessible));
        let best = (0..slots.waiting.len()).min_by_key(|index| fit(&slots.waiting[*index]));
        let mut slot = match best {
            Some(index) => slots.waiting.swap_remove(index),
            None if slots.lent < MEMORIES_MAX => Slot::new()?,
            None => return Err(io::Error::other("all are in use")),
        };
        slot.shrink(slot.accessible.min(bytes))?;
        // Only one memory at a time opens by faults, since the reserve is for one.
        slot.opens_by_faults =
            slots.lent == 0 && bytes <= FAULT_WINDOW_BYTES_MAX && fault_window::hold_reserve();
        slot.extend(slot.accessible)?;
        slots.lent += 1;
        Ok(slot)
    }

    /// Takes a slot back, to be lent again or unmapped.
    fn give_back(&self, mut slot: Slot, minimum: usize) {
        let mut slots = self.slots.hold();
        slots.lent = slots.lent.saturating_sub(1);
        if slots.waiting.len() >= self.waiting_max {
            return;
        }
        let stays = self.whole_pages(minimum).min(WAITING_BYTES_MAX);
        let kept: usize = slots.waiting.iter().map(|slot| slot.kept).sum();
        let room = KEPT_BYTES_IN_ALL_MAX.saturating_sub(kept).min(KEPT_BYTES_MAX);
        if self.reset(&mut slot, stays, room, &mut slots.residency).is_ok() {
            slots.waiting.push(slot);
        }
    }

    /// Leaves the slot zero, accessible up to `stays` at the most, and with `room` bytes resident at the most.
    fn reset(&self, slot: &mut Slot, stays: usize, room: usize, residency: &mut [u8]) -> io::Result<()> {
        if slot.is_broken {
            return Err(io::Error::other("nobody knows what is accessible"));
        }
        slot.resets += 1;
        let is_little = slot.is_window();
        let found =
            if is_little { slot.zero_window(stays, room) } else { self.zero(slot, stays, room, residency) };
        slot.large_resets = if is_little { 0 } else { slot.large_resets + 1 };
        let every = match is_little {
            true if slot.open().len() <= LEAST_BYTES => FORGET_LEAST_EVERY,
            true => FORGET_LITTLE_EVERY,
            false => FORGET_EVERY,
        };
        match found {
            Found::Zeroed if slot.resets < every => {}
            // A slot that is always large would only be opened again.
            Found::Much if !is_little && slot.large_resets < FORGET_EVERY => slot.decommit()?,
            _ => slot.decommit_and_close()?,
        }
        slot.shrink(slot.accessible.min(stays))
    }

    /// Zeroes what is resident.
    fn zero(&self, slot: &mut Slot, stays: usize, room: usize, residency: &mut [u8]) -> Found {
        let pages = slot.accessible / self.page;
        let Some(residency) = residency.get_mut(..pages) else { return Found::Much };
        if pages == 0 {
            return Found::Zeroed;
        }
        // Swap must be off both before and after the question, as the head of this file explains.
        if !self.swaps.are_off() || !slot.resident(residency) || !self.swaps.are_off() {
            return Found::Much;
        }
        let resident = |pages: &[u8]| pages.iter().filter(|page| is_resident(**page)).count();
        let all = resident(residency);
        let beyond = residency.get(stays / self.page..).map_or(0, resident);
        let found = slot.account(all * self.page, beyond * self.page, room);
        if found != Found::Zeroed {
            return found;
        }
        let mut at = 0;
        for run in residency.chunk_by(|one, other| is_resident(*one) == is_resident(*other)) {
            if is_resident(run[0]) {
                slot.zero(at * self.page, run.len() * self.page);
            }
            at += run.len();
        }
        found
    }

    fn whole_pages(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(self.page)
    }
}

/// The result of looking at a slot for a reset, and so what the reset is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Zeroed,
    /// Everything is to be given back: there is much, or nobody knows.
    Much,
    /// Everything is to be given back, since there is much more than is usual.
    Unusual,
}

/// The other bits are reserved.
fn is_resident(page: u8) -> bool {
    page & 1 == 1
}

/// Room for one memory: a mapping of its own.
#[derive(Debug)]
struct Slot {
    /// The guard before the memory begins here.
    start: NonNull<u8>,
    /// Bytes of the memory that can be accessed, in whole pages; not those beyond. What is open lies below.
    accessible: usize,
    /// `None`: all that is accessible is open.
    fault_window: Option<FaultWindow>,
    /// The memory is opened at once where this is `false`.
    opens_by_faults: bool,
    /// The open part ended here before it was cut off at `accessible`.
    cut: usize,
    /// The largest that `accessible` was since everything was given back.
    touched: usize,
    /// Bytes that may be resident while it waits, and of these beyond what is accessible.
    kept: usize,
    kept_beyond: usize,
    /// Counted since everything was given back: the resets, the pages that were resident at the first one,
    /// and how often there were many more.
    resets: u32,
    usual: Option<usize>,
    excesses: u32,
    /// Resets in a row of more than a window.
    large_resets: u32,
    /// `accessible` may be wrong, so the slot must not be used again.
    is_broken: bool,
}

// SAFETY: it owns its mapping, as a box does its contents, whichever thread it is on; a shared reference
// of it reads nothing but its numbers.
unsafe impl Send for Slot {}
// SAFETY: as above.
unsafe impl Sync for Slot {}

impl Slot {
    fn new() -> io::Result<Slot> {
        // SAFETY: a new mapping, at an address that the kernel chooses, replaces nothing.
        let start = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            rustix::mm::mmap_anonymous(ptr::null_mut(), SLOT_BYTES, ProtFlags::empty(), flags)?
        };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("a mapping at 0"))?;
        let mut slot = Slot {
            start,
            accessible: 0,
            fault_window: None,
            opens_by_faults: false,
            cut: 0,
            touched: 0,
            kept: 0,
            kept_beyond: 0,
            resets: 0,
            usual: None,
            excesses: 0,
            large_resets: 0,
            is_broken: false,
        };
        // SAFETY: within this slot's mapping; it changes what pages it will have, and nothing that they
        // hold. Where there are none, it stays as it is.
        let _ = unsafe {
            let large = slot.base().add(HUGE_FROM_BYTES).cast();
            rustix::mm::madvise(large, MEMORY_BYTES - HUGE_FROM_BYTES, Advice::LinuxHugepage)
        };
        slot.fault_window = FaultWindow::new(slot.base());
        Ok(slot)
    }

    fn base(&self) -> *mut u8 {
        // SAFETY: the mapping is larger than the guard at its start.
        unsafe { self.start.as_ptr().add(GUARD_BYTES) }
    }

    /// Returns the part that can be accessed without a fault.
    fn open(&self) -> Range<usize> {
        self.fault_window.as_ref().map_or(0..self.accessible, FaultWindow::open)
    }

    /// Returns whether what is open is to be zeroed without asking.
    fn is_window(&self) -> bool {
        self.fault_window.is_some()
            && self.open().len() <= WINDOW_BYTES_MAX
            && self.accessible <= FAULT_WINDOW_BYTES_MAX
    }

    /// Makes the bytes accessible up to `to`: all of them, or none and an error.
    fn extend(&mut self, to: usize) -> io::Result<()> {
        if to > MEMORY_BYTES {
            return Err(io::Error::other("beyond its room"));
        }
        let to = to.max(self.accessible);
        let open = self.open();
        let by_faults = self.opens_by_faults && self.is_window() && to <= FAULT_WINDOW_BYTES_MAX;
        let wanted = match by_faults {
            // The tasks before this one touched that part.
            true if self.cut > self.accessible && open.end == self.accessible => open.start..self.cut.min(to),
            true => open.clone(),
            false => 0..to,
        };
        self.open_all(&open, &wanted)?;
        self.accessible = to;
        if let Some(fault_window) = &self.fault_window {
            fault_window.set_limit(if by_faults { to } else { 0 });
        }
        self.touched = self.touched.max(to);
        if to >= self.cut {
            self.cut = 0;
        }
        // The pages kept there count again when they are asked for.
        self.kept_beyond = if self.accessible >= self.touched { 0 } else { self.kept_beyond };
        Ok(())
    }

    /// Opens what of `wanted` is not open; all or nothing.
    fn open_all(&mut self, open: &Range<usize>, wanted: &Range<usize>) -> io::Result<()> {
        let parts = match open.is_empty() {
            true => [wanted.clone(), 0..0],
            false => [wanted.start..open.start, open.end..wanted.end],
        };
        for (index, part) in parts.iter().enumerate().filter(|(_, part)| !part.is_empty()) {
            if let Err(error) = self.protect(part.start, part.end, MprotectFlags::READ | MprotectFlags::WRITE)
            {
                // The range may lie in several of the kernel's areas, of which some are changed now.
                for part in parts[..=index].iter().filter(|part| !part.is_empty()) {
                    self.is_broken |= self.protect(part.start, part.end, MprotectFlags::empty()).is_err();
                }
                return Err(error);
            }
        }
        if let Some(fault_window) = &self.fault_window {
            fault_window.set_open(wanted.clone());
        }
        Ok(())
    }

    /// Has them trap from `to` on, and opens nothing more. What they hold stays: it must be zero.
    fn shrink(&mut self, to: usize) -> io::Result<()> {
        let open = self.open();
        if let Some(fault_window) = &self.fault_window {
            fault_window.set_limit(0);
        }
        if open.end > to {
            self.protect(open.start.max(to), open.end, MprotectFlags::empty())?;
            if let Some(fault_window) = &self.fault_window {
                fault_window.set_open(if open.start < to { open.start..to } else { 0..0 });
            }
            self.cut = self.cut.max(open.end);
        }
        self.accessible = to;
        Ok(())
    }

    fn protect(&self, from: usize, to: usize, flags: MprotectFlags) -> io::Result<()> {
        debug_assert!(from <= to && to <= MEMORY_BYTES);
        // SAFETY: within this slot's own mapping, of which nobody but the instance at hand, if any, has
        // a pointer; that is told what it may access, and traps beyond.
        unsafe { rustix::mm::mprotect(self.base().add(from).cast(), to - from, flags)? };
        Ok(())
    }

    /// Returns whether the kernel says of each page up to `accessible` if it is resident. There is one byte for
    /// each.
    fn resident(&self, residency: &mut [u8]) -> bool {
        // SAFETY: the range is within this slot's mapping, and the kernel writes one byte for each of
        // its pages, of which there are as many as the slice has.
        unsafe { libc::mincore(self.base().cast(), self.accessible, residency.as_mut_ptr()) == 0 }
    }

    /// Zeroes all that is open.
    fn zero_window(&mut self, stays: usize, room: usize) -> Found {
        let open = self.open();
        let found = self.account(open.len(), open.end.saturating_sub(stays.max(open.start)), room);
        if found == Found::Zeroed {
            self.zero(open.start, open.len());
        }
        found
    }

    /// Counts what is to be kept: so many bytes, of which some are `beyond` what stays accessible. Says what is
    /// to be done with them.
    fn account(&mut self, all: usize, beyond: usize, room: usize) -> Found {
        let kept = all.saturating_add(self.kept_beyond);
        if kept > room {
            return Found::Much;
        }
        if self.is_in_excess(all / rustix::param::page_size()) {
            return Found::Unusual;
        }
        self.kept = kept;
        // The slot keeps the part beyond, which is not asked for again until it is accessible.
        self.kept_beyond += beyond;
        Found::Zeroed
    }

    /// Returns whether a task has touched much more than others do, and that for some time.
    fn is_in_excess(&mut self, pages: usize) -> bool {
        let usual = *self.usual.get_or_insert(pages);
        self.excesses += u32::from(pages > 2 * usual + FEW_PAGES);
        self.excesses >= FORGET_EXCESS_EVERY
    }

    /// Zeroes accessible bytes.
    fn zero(&mut self, from: usize, len: usize) {
        let end = from.saturating_add(len).min(self.accessible);
        let from = from.min(self.accessible);
        // SAFETY: up to `accessible` the mapping can be written to, and nobody refers to it: the memory
        // that was there is gone.
        unsafe { ptr::write_bytes(self.base().add(from), 0, end - from) };
    }

    /// Gives all pages back that were ever accessible, and closes what is open, so that faults find out anew what is
    /// touched.
    fn decommit_and_close(&mut self) -> io::Result<()> {
        self.decommit()?;
        if let Some(fault_window) = &self.fault_window {
            let open = fault_window.open();
            self.protect(open.start, open.end, MprotectFlags::empty())?;
            fault_window.set_open(0..0);
            self.cut = 0;
            self.large_resets = 0;
        }
        Ok(())
    }

    /// Gives all pages back that were ever accessible: they are zero when they are touched next.
    fn decommit(&mut self) -> io::Result<()> {
        // SAFETY: within this slot's mapping, private and anonymous; nobody refers to what it holds.
        unsafe { rustix::mm::madvise(self.base().cast(), self.touched, Advice::LinuxDontNeed)? };
        self.touched = self.accessible;
        self.kept = 0;
        self.kept_beyond = 0;
        self.resets = 0;
        self.usual = None;
        self.excesses = 0;
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which is this slot's own, and to which nothing refers any more. If it
        // fails, the addresses are not used again.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), SLOT_BYTES) };
    }
}

/// One memory of an instance.
struct Memory {
    /// The slot is there until the memory is dropped.
    slot: Option<Slot>,
    size: usize,
    minimum: usize,
    shared: Arc<Shared>,
}

impl Memory {
    fn grow(&mut self, size: usize) -> io::Result<()> {
        if size > MEMORY_BYTES {
            return Err(io::Error::other("beyond its room"));
        }
        let Some(slot) = &mut self.slot else { return Err(io::Error::other("it is gone")) };
        slot.extend(self.shared.whole_pages(size))?;
        self.size = size;
        Ok(())
    }
}

// SAFETY: as for `Memories`.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.size
    }

    fn byte_capacity(&self) -> usize {
        MEMORY_BYTES
    }

    fn grow_to(&mut self, size: usize) -> wasmtime::Result<()> {
        Ok(self.grow(size)?)
    }

    fn as_ptr(&self) -> *mut u8 {
        self.slot.as_ref().map_or(ptr::null_mut(), Slot::base)
    }
}

/// The memory that safepoints read: all instances have the same, and it is always zero.
struct PolledMemory(OwnPage);

// SAFETY: only safepoints name it, which read the bytes that it has. The addresses behind it are mapped without access,
// or far from all other memories.
unsafe impl LinearMemory for PolledMemory {
    fn byte_size(&self) -> usize {
        POLLING_PAGE_BYTES as usize
    }

    fn byte_capacity(&self) -> usize {
        POLLING_PAGE_BYTES as usize
    }

    fn grow_to(&mut self, size: usize) -> wasmtime::Result<()> {
        wasmtime::ensure!(size <= self.byte_size(), "it does not grow");
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.base()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.shared.give_back(slot, self.minimum);
        }
    }
}

/// The kernel's list of devices in use for swap, kept open: a worker can open nothing later.
enum Swaps {
    List(File),
    /// The system does not say, so pages may be swapped out.
    Unknown,
}

/// The first kernel that is believed, see above.
const KERNEL_MIN: (u32, u32) = (6, 5);

impl Swaps {
    fn look() -> Swaps {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let list = File::open("/proc/swaps");
        // Containers may have another list over it, in which the machine's swap is not named (LXCFS).
        let is_procs =
            |list: &File| rustix::fs::fstatfs(list).is_ok_and(|fs| fs.f_type == libc::PROC_SUPER_MAGIC);
        match list {
            Ok(list) if is_procs(&list) && is_believed(&release) => Swaps::List(list),
            _ => Swaps::Unknown,
        }
    }

    /// Returns whether no page can be swapped out at this moment.
    fn are_off(&self) -> bool {
        let Swaps::List(list) = self else { return false };
        // The file has a heading, and a line for each device.
        let mut text = [0; 256];
        let Ok(len) = list.read_at(&mut text, 0) else { return false };
        matches!(text[..len].split_last(), Some((b'\n', heading))
            if heading.starts_with(b"Filename") && !heading.contains(&b'\n'))
    }
}

fn is_believed(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    (numbers.next().flatten().unwrap_or(0), numbers.next().flatten().unwrap_or(0)) >= KERNEL_MIN
}

#[cfg(test)]
#[path = "memories/tests.rs"]
mod tests;
