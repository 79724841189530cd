//! Memory as direct reads and writes want it.

use super::DIRECT_ALIGN;

/// `SIZE` bytes that begin at a multiple of [`DIRECT_ALIGN`], taken when they are first used, and used again and again.
#[derive(Default)]
pub struct Aligned<const SIZE: usize> {
    /// Empty until the first use.
    memory: Vec<u8>,
}

impl<const SIZE: usize> Aligned<SIZE> {
    /// All of it, with what was left there last.
    pub fn bytes(&mut self) -> &mut [u8] {
        if self.memory.is_empty() {
            self.memory = vec![0; SIZE + DIRECT_ALIGN];
        }
        let start = self.memory.as_ptr().align_offset(DIRECT_ALIGN);
        &mut self.memory[start..start + SIZE]
    }
}
