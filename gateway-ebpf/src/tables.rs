//! The maps, and the lookups in them.

use adit_maps::{
    MMAPABLE, NO_PREALLOC, Stamp,
    address::Address,
    classes::{self, BEYOND, CELLS, Cell, Cells, Damaged, Key, Side},
    event::{self, Event},
    policy::{
        ATTEMPTS, ClassPair, Flow, MAX_PAIRS, MAX_SELECTORS, MAX_SLOTS, Outbound, PairRules, Replaced, Rule,
        RuleList, Selector, Spd, try_look_up,
    },
    port::{MAX_LOCALS, MAX_PORTS, MAX_QUEUES, Port},
    sa::{DEFAULT_CAPACITY, RawState, SaRef, SadConfig, SpiKey},
    verdict::{ENTRIES, Verdict, counter_index},
};
use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf, XskMap},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};

#[btf_map]
static LAYOUT: Array<Stamp, 1> = Array::new();
#[btf_map]
static SAD_CONFIG: Array<SadConfig, { DEFAULT_CAPACITY as usize }, MMAPABLE> = Array::new();
#[btf_map]
static SAD_STATE: Array<RawState, { DEFAULT_CAPACITY as usize }, MMAPABLE> = Array::new();
#[btf_map]
static SPI_INDEX: HashMap<SpiKey, SaRef, { DEFAULT_CAPACITY as usize }> = HashMap::new();
#[btf_map]
static SPD_CLASSES: Array<Cell, { CELLS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static SPD_RULES: HashMap<ClassPair, PairRules, MAX_PAIRS, NO_PREALLOC> = HashMap::new();
#[btf_map]
static OUTBOUND: Array<Outbound, MAX_SLOTS, MMAPABLE> = Array::new();
#[btf_map]
static SELECTORS: Array<Selector, MAX_SELECTORS, MMAPABLE> = Array::new();
#[btf_map]
static PORTS: HashMap<u32, Port, { MAX_PORTS as usize }> = HashMap::new();
#[btf_map]
static LOCALS: HashMap<Address, u32, MAX_LOCALS> = HashMap::new();
#[btf_map]
pub(crate) static XSKS: XskMap<{ (MAX_PORTS * MAX_QUEUES) as usize }> = XskMap::new();
#[btf_map]
static EVENTS: RingBuf<Event, { event::RING_BYTES }> = RingBuf::new();
#[btf_map]
static VERDICTS: PerCpuArray<u64, ENTRIES> = PerCpuArray::new();
/// When this CPU last told of an unknown SPI. Private to the program: not pinned, not in the layout.
#[btf_map]
static TOLD: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The port that has this interface index.
#[inline(always)]
pub(crate) fn port(ifindex: u32) -> Option<Port> {
    // SAFETY: the element stays mapped until the program ends. It is copied at once; where a port's MAC address changes,
    // another element takes its place, and this one is not written before the next change.
    unsafe { PORTS.get(ifindex) }.copied()
}

/// Whether the address is one of the gateway's own.
#[inline(always)]
pub(crate) fn is_local(address: &Address) -> bool {
    LOCALS.get_ptr(address).is_some()
}

/// The inbound SA.
#[inline(always)]
pub(crate) fn inbound(key: &SpiKey) -> Option<SaRef> {
    // SAFETY: the element stays mapped until the program ends; should it become another SA's meanwhile, the worker
    // compares the SPI.
    unsafe { SPI_INDEX.get(key) }.copied()
}

/// The outbound SA of a slot; when there is none, whether it is time to ask for one.
#[inline(always)]
pub(crate) fn outbound(slot: u32) -> Result<SaRef, bool> {
    let Some(slot) = OUTBOUND.get_ptr_mut(slot) else { return Err(false) };
    // SAFETY: a valid entry of the array. `sa` is 8 aligned bytes that `control` replaces in one store; one volatile
    // load sees the old SA or the new, never a mixture.
    let sa = unsafe { slot.cast::<u64>().read_volatile() };
    // SAFETY: SaRef is two u32 without padding, the size of a u64.
    let sa: SaRef = unsafe { core::mem::transmute(sa) };
    if sa.generation != 0 {
        return Ok(sa);
    }
    // SAFETY: as above; a race between CPUs tells twice, which is harmless.
    Err(unsafe { is_due(&raw mut (*slot).asked) })
}

/// Whether it is time to tell of an unknown SPI.
#[inline(always)]
pub(crate) fn unknown_spi_due() -> bool {
    match TOLD.get_ptr_mut(0) {
        // SAFETY: a valid entry that only this CPU uses.
        Some(told) => unsafe { is_due(told) },
        None => false,
    }
}

/// Tells `control`; when the ring is full the event is lost, and is told again after the interval.
#[inline(always)]
pub(crate) fn tell(event: Event) {
    let _ = EVENTS.output(event, 0);
}

/// Counts a verdict of a port.
#[inline(always)]
pub(crate) fn count(slot: u32, verdict: Verdict) {
    if let Some(counter) = VERDICTS.get_ptr_mut(counter_index(slot, verdict)) {
        // SAFETY: a valid entry that only this CPU writes.
        unsafe { *counter += 1 }
    }
}

/// # Safety
/// `last` points into a map's entry.
#[inline(always)]
unsafe fn is_due(last: *mut u64) -> bool {
    // SAFETY: the helper has no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: by the contract of this function.
    unsafe {
        if now.wrapping_sub(*last) < event::INTERVAL_NS && *last != 0 {
            return false;
        }
        *last = now;
    }
    true
}

/// Writes the first rule that covers a flow to `rule`, or leaves it as it is: [`adit_maps::policy::look_up`].
#[inline(always)]
pub(crate) fn policy(flow: &Flow, rule: &mut Rule) -> bool {
    let mut attempts = 0;
    while attempts < ATTEMPTS {
        match adit_policy(flow, rule) {
            answer::COVERED => return true,
            answer::NOT_COVERED => return false,
            _ => attempts += 1,
        }
    }
    *rule = Rule::DISCARD;
    true
}

/// The SPD in its maps.
struct SpdMaps;

impl Spd for SpdMaps {
    #[inline(always)]
    fn generation(&self) -> u64 {
        self.word(0, 0)
    }
    /// Volatile loads stay in their order, as far as the processor keeps it. Where it does not, `control` leaves an area as
    /// it is for longer than this program runs.
    #[inline(always)]
    fn is_still(&self, generation: u64) -> bool {
        self.word(0, 0) == generation
    }
    #[inline(always)]
    fn classes(&self, generation: u64, flow: &Flow) -> Result<Option<ClassPair>, Damaged> {
        let area = classes::area(generation);
        let Flow { source, destination, .. } = *flow;
        let Key { table, high, low } = Key::new(Side::Source, source);
        let Some(source) = classes::found(adit_class(area, table, high, low))? else { return Ok(None) };
        let Key { table, high, low } = Key::new(Side::Destination, destination);
        let Some(destination) = classes::found(adit_class(area, table, high, low))? else { return Ok(None) };
        Ok(Some(ClassPair { source, destination }))
    }
    #[inline(always)]
    fn with_rules(&self, pair: &ClassPair, f: impl FnOnce(&RuleList) -> Option<Rule>) -> Option<Rule> {
        // SAFETY: the element stays mapped until the program ends; if it becomes another pair's meanwhile, `checked`
        // sees it.
        let value = unsafe { SPD_RULES.get(pair) }?;
        value.checked(pair, f(&value.rules))
    }
}

// Global functions, which the verifier looks at once, each by itself. As parts of their callers it would look at them for
// every path through every call, which takes it seconds.

/// What [`adit_policy`] says.
mod answer {
    pub(super) const COVERED: u32 = 0;
    pub(super) const NOT_COVERED: u32 = 1;
    pub(super) const REPLACED: u32 = 2;
}

/// [`try_look_up`] in the maps; the rule is written where there is one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn adit_policy(flow: *const Flow, rule: *mut Rule) -> u32 {
    // SAFETY: null, or what a caller refers to: the verifier lets nothing else be passed.
    let (Some(flow), Some(rule)) = (unsafe { flow.as_ref() }, unsafe { rule.as_mut() }) else {
        return answer::REPLACED;
    };
    match try_look_up(&SpdMaps, flow) {
        Ok(Some(found)) => {
            *rule = found;
            answer::COVERED
        }
        Ok(None) => answer::NOT_COVERED,
        Err(Replaced) => answer::REPLACED,
    }
}

/// [`classes::find`] in SPD_CLASSES.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn adit_class(area: u32, table: u32, high: u64, low: u64) -> u32 {
    classes::find(&SpdMaps, area, table, high, low)
}

impl Cells for SpdMaps {
    #[inline(always)]
    fn cell(&self, index: u32) -> Option<Cell> {
        let cell = SPD_CLASSES.get_ptr(index)?.cast::<u64>();
        // SAFETY: a valid entry of the array, two aligned words; volatile, because `control` may be writing it, and
        // `is_still` finds that out.
        Some(unsafe { [cell.read_volatile(), cell.add(1).read_volatile()] })
    }
    #[inline(always)]
    fn word(&self, index: u32, word: u32) -> u64 {
        let Some(cell) = SPD_CLASSES.get_ptr(index) else { return BEYOND };
        // SAFETY: as above; one of the two.
        unsafe { cell.cast::<u64>().add(word as usize & 1).read_volatile() }
    }
}
