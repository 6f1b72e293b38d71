//! The locals that edges hand on: what a compiler moves where ways meet that have written them
//! differently.
//!
//! ```text
//! edge to a label ─▶ the label counts it, and from when on its way may have parted from the others
//! label reached   ─▶ each local written since then owes the moves of the label's edges
//! local read      ─▶ what it owes is work; written on every way before that, it owes nothing
//! ```
//! It is the counting that a compiler does when it gives each value a name, in one pass and on the high
//! side: a local counts at a label when it was written after its ways parted, whatever the way.

use wasmparser::{BlockType, Operator};

/// Of a local that an edge hands on, before what its company adds.
const HANDED: u64 = 4;
/// A local that is handed on with others weighs one more for each, up to so many: what finds no register is
/// moved through memory.
const COMPANY_MAX: u64 = 24;
/// Beyond that, so many others add one to the weight of each: compilers are not linear in them.
const COMPANY_STEP: u64 = 16;
/// Operators with an edge to the same label that double what each of them hands on.
const WAYS: u64 = 256;
/// Blocks around a label that double what it hands on: each of them hands it on again.
const DEPTH: u64 = 40;
/// Targets of a table that double what each of them hands on: compilers compare them with each other.
const TARGETS: u64 = 96;

/// A block whose end is still to come.
#[derive(Clone, Copy)]
struct Open {
    is_loop: bool,
    /// Whether its end hands on a value of the stack, as it hands on a local that is read.
    has_result: bool,
    /// When it was opened, and when its half, where it is an `if` with two.
    opened: u32,
    half: u32,
    /// Edges to its label: to a loop's head, or to the end of another block.
    edges: u64,
    /// The operators that have them, and the last of those.
    ways: u64,
    last: u32,
    /// When the first way may have parted from the others.
    parted: u32,
    /// Whether the block's end or the other half of an `if` can be reached.
    reached: bool,
}

/// A local.
#[derive(Clone, Copy, Default)]
struct Local {
    written: u32,
    read: u32,
    /// What it owes, and since when it owes anything.
    owes: u64,
    since: u32,
}

/// What a function's edges hand on.
pub(super) struct Handed {
    locals: Vec<Local>,
    open: Vec<Open>,
    /// Operators so far; times are counts of them.
    now: u32,
    /// The last edge to any label, and the last write to any local.
    last_edge: u32,
    last_write: u32,
    /// Whether the next operator can be reached.
    reached: bool,
}

impl Handed {
    pub(super) fn new(locals: u64) -> Self {
        let count = usize::try_from(locals).unwrap_or(0);
        Self {
            locals: vec![Local::default(); count],
            open: Vec::new(),
            now: 0,
            last_edge: 0,
            last_write: 0,
            reached: true,
        }
    }

    /// The work that one operator more reveals.
    pub(super) fn add(&mut self, operator: &Operator<'_>) -> u64 {
        self.now = self.now.saturating_add(1);
        match operator {
            Operator::Block { blockty } => self.enter(false, 0, *blockty),
            Operator::Loop { blockty } => self.enter(true, 0, *blockty),
            // The way past it.
            Operator::If { blockty } => self.enter(false, 1, *blockty),
            Operator::Else => {
                // The first half's way out; the second half is reached as the first was.
                let here = self.reached;
                self.edge(0, u64::from(here));
                if let Some(block) = self.open.last_mut() {
                    self.reached = block.reached;
                    block.half = self.now;
                }
            }
            Operator::Br { relative_depth } => {
                self.edge(*relative_depth, 1);
                self.reached = false;
            }
            Operator::BrIf { relative_depth } => self.edge(*relative_depth, 1),
            Operator::BrTable { targets } => {
                let each = 1 + u64::from(targets.len()) / TARGETS;
                // What cannot be read the validator refuses next.
                for target in targets.targets().flatten() {
                    self.edge(target, each);
                }
                self.edge(targets.default(), each);
                self.reached = false;
            }
            Operator::Return | Operator::Unreachable => self.reached = false,
            Operator::LocalGet { local_index } => return self.read(*local_index),
            Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
                self.write(*local_index);
            }
            Operator::End => return self.leave(),
            _ => {}
        }
        0
    }

    fn enter(&mut self, is_loop: bool, edges: u64, ty: BlockType) {
        let edges = if self.reached { edges } else { 0 };
        self.open.push(Open {
            is_loop,
            has_result: ty != BlockType::Empty,
            opened: self.now,
            half: self.now,
            edges,
            ways: edges,
            last: self.now,
            parted: self.now,
            reached: self.reached,
        });
    }

    /// Edges to the label of the block so many blocks out. The function's own label hands on no locals.
    fn edge(&mut self, depth: u32, count: u64) {
        if !self.reached {
            return;
        }
        let Some(place) = self.open.len().checked_sub(depth as usize + 1) else {
            return;
        };
        // From within another block, the ways may have parted where that began.
        let inside = self.open.get(place + 1);
        let parted = inside.map_or(self.now, |block| block.opened);
        if let Some(block) = self.open.get_mut(place) {
            if block.ways == 0 {
                block.parted = parted;
            }
            block.parted = block.parted.min(parted);
            if block.ways == 0 || block.last != self.now {
                block.ways += 1;
            }
            block.edges += count;
            block.last = self.now;
            self.last_edge = self.now;
        }
    }

    fn read(&mut self, local: u32) -> u64 {
        let Some(local) = self.locals.get_mut(local as usize) else {
            return 0;
        };
        local.read = self.now;
        core::mem::take(&mut local.owes)
    }

    fn write(&mut self, local: u32) {
        let Some(local) = self.locals.get_mut(local as usize) else {
            return;
        };
        local.written = self.now;
        self.last_write = self.now;
        // What it was is read no more, unless a way leads past this write: from within a block that was
        // opened since, or by a branch.
        let inside = self
            .open
            .last()
            .is_some_and(|block| block.half >= local.since);
        if !inside && self.last_edge < local.since {
            local.owes = 0;
        }
    }

    fn leave(&mut self) -> u64 {
        let Some(block) = self.open.pop() else {
            return 0;
        };
        if block.is_loop {
            return self.leave_loop(block);
        }
        let through = u64::from(self.reached);
        self.reached |= block.edges > 0;
        if block.ways + through < 2 {
            return 0;
        }
        let edges = block.edges + through;
        self.meet(block.parted, edges, block.ways);
        u64::from(block.has_result) * edges * HANDED
    }

    /// What the edges to a loop's head hand on: all that the loop writes.
    fn leave_loop(&mut self, block: Open) -> u64 {
        if block.edges == 0 {
            return 0;
        }
        self.meet(block.opened, block.edges + 1, block.ways);
        let read_inside = |local: &&mut Local| local.read > block.opened;
        let inside = self.locals.iter_mut().filter(read_inside);
        inside.map(|local| core::mem::take(&mut local.owes)).sum()
    }

    /// So many edges of so many operators meet here; their ways have parted since that time.
    fn meet(&mut self, parted: u32, edges: u64, ways: u64) {
        if self.last_write <= parted {
            return;
        }
        let (now, depth) = (self.now, self.open.len());
        let differs = |local: &Local| local.written > parted;
        let company = self.locals.iter().filter(|local| differs(local)).count();
        if company == 0 {
            return;
        }
        let company = company as u64;
        let each = HANDED + company.min(COMPANY_MAX) + company / COMPANY_STEP;
        let around = edges * each * (DEPTH + depth as u64) / DEPTH;
        let owed = around * (WAYS + ways) / WAYS;
        for local in self.locals.iter_mut().filter(|local| differs(local)) {
            // What it owes leaves with the oldest: an edge may have taken that one on since.
            if local.owes == 0 {
                local.since = now;
            }
            local.owes += owed;
            // For the labels around, this is where it got its value.
            local.written = now;
        }
        self.last_write = now;
    }
}
