//! How long a compiler may take over a function, bounded before it is asked.
//!
//! Size alone does not bound it: the time to find which value a local holds grows with locals times
//! branches, and in nested loops with the square of the depth (measured: 1,000 locals in 40 nested
//! loops, 9 KB of code, take as long as 100 KB of ordinary code).

use wasmparser::Operator;

/// Locals times branches of a function so far, each branch counted once more for every loop around it.
pub(crate) struct Complexity {
    locals: u64,
    /// True for a loop.
    open: Vec<bool>,
    depth: u64,
    sum: u64,
}

impl Complexity {
    /// Of a function with so many locals and parameters, before its first operator.
    pub(crate) const fn new(locals: u64) -> Self {
        Self {
            locals,
            open: Vec::new(),
            depth: 0,
            sum: locals,
        }
    }

    /// Counts one operator; the sum with it.
    pub(crate) fn add(&mut self, operator: &Operator<'_>) -> u64 {
        match operator {
            Operator::Block { .. } | Operator::If { .. } => self.open.push(false),
            Operator::Loop { .. } => {
                self.open.push(true);
                self.depth += 1;
            }
            Operator::End if self.open.pop() == Some(true) => self.depth -= 1,
            _ => {}
        }
        self.sum += self.locals * branches(operator) * (1 + self.depth);
        self.sum
    }

    /// The sum over the operators counted.
    pub(crate) const fn sum(&self) -> u64 {
        self.sum
    }
}

/// Edges of the control flow that an operator adds, those of injected code included.
fn branches(operator: &Operator<'_>) -> u64 {
    match operator {
        Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::If { .. }
        | Operator::Else
        | Operator::Br { .. }
        | Operator::BrIf { .. }
        | Operator::Return
        | Operator::Call { .. }
        | Operator::CallIndirect { .. }
        | Operator::MemoryFill { .. }
        | Operator::MemoryCopy { .. }
        | Operator::MemoryGrow { .. } => 1,
        Operator::BrTable { targets } => 1 + u64::from(targets.len()),
        _ => 0,
    }
}
