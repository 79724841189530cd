//! Laying sources of bytes over each other: pure.

use atoll_base::block::BlockId;
use bytes::Bytes;

/// Where bytes of a read come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// At hand.
    Data(Bytes),
    /// In a block.
    Block { id: BlockId, offset: u32, len: u32 },
    /// Nowhere: zeros.
    Hole(u64),
}

impl Part {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Part::Data(data) => data.len() as u64,
            Part::Block { len, .. } => u64::from(*len),
            Part::Hole(len) => *len,
        }
    }

    /// The bytes `from..to` of it.
    fn cut(&self, from: u64, to: u64) -> Part {
        match self {
            Part::Data(data) => Part::Data(data.slice(from as usize..to as usize)),
            Part::Block { id, offset, .. } => {
                Part::Block { id: *id, offset: offset + from as u32, len: (to - from) as u32 }
            }
            Part::Hole(_) => Part::Hole(to - from),
        }
    }
}

/// Parts by offset: in order, not overlapping.
pub(crate) type Layer = Vec<(u64, Part)>;

/// `over`, and of `under` what it leaves uncovered.
pub(crate) fn lay(over: Layer, under: Layer) -> Layer {
    if over.is_empty() {
        return under;
    }
    let mut all = Vec::with_capacity(over.len() + under.len());
    // The first part of `over` that may reach into what follows.
    let mut first = 0;
    for (start, part) in under {
        let end = start + part.len();
        let mut at = start;
        while first < over.len() && over[first].0 + over[first].1.len() <= start {
            first += 1;
        }
        for (o, p) in over[first..].iter().take_while(|(o, _)| *o < end) {
            if *o > at {
                all.push((at, part.cut(at - start, o - start)));
            }
            at = o + p.len();
        }
        if at < end {
            all.push((at, part.cut(at - start, end - start)));
        }
    }
    all.extend(over);
    all.sort_unstable_by_key(|(offset, _)| *offset);
    all
}

/// Fills what is uncovered between `start` and `end` with holes, and joins neighbours that lie side by side in one
/// block. All parts must be within `start..end`.
pub(crate) fn complete(layer: Layer, start: u64, end: u64) -> Vec<Part> {
    let mut all: Vec<Part> = Vec::with_capacity(layer.len() + 1);
    let mut at = start;
    for (offset, part) in layer {
        if offset > at {
            all.push(Part::Hole(offset - at));
        }
        at = offset + part.len();
        match (all.last_mut(), &part) {
            (Some(Part::Block { id, offset, len }), Part::Block { id: id2, offset: offset2, len: len2 })
                if id == id2 && *offset + *len == *offset2 =>
            {
                *len += len2;
            }
            _ => all.push(part),
        }
    }
    if end > at {
        all.push(Part::Hole(end - at));
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use atoll_base::id::Epoch;
    use proptest::prelude::*;

    const SIZE: usize = 300;

    /// A layer, and what it says about each byte: (kind, value).
    fn any_layer(block: u64) -> impl Strategy<Value = Layer> {
        prop::collection::vec((0u64..20, 1u32..40, any::<bool>(), any::<u8>()), 0..8).prop_map(move |parts| {
            let mut at = 0;
            let mut layer = Vec::new();
            for (gap, len, data, byte) in parts {
                at += gap;
                if at + u64::from(len) > SIZE as u64 {
                    break;
                }
                let part = if data {
                    Part::Data(Bytes::from(vec![byte; len as usize]))
                } else {
                    Part::Block { id: BlockId::new(Epoch(1), block), offset: at as u32, len }
                };
                layer.push((at, part));
                at += u64::from(len);
            }
            layer
        })
    }

    fn paint(picture: &mut [Option<(u64, u64)>], at: u64, part: &Part) {
        for i in 0..part.len() {
            picture[(at + i) as usize] = match part {
                Part::Data(d) => Some((0, u64::from(d[i as usize]))),
                Part::Block { id, offset, .. } => Some((id.seq(), u64::from(*offset) + i)),
                Part::Hole(_) => None,
            };
        }
    }

    proptest! {
        #[test]
        fn upper_layers_win(over in any_layer(7), under in any_layer(8)) {
            let mut expected = vec![None; SIZE];
            under.iter().chain(&over).for_each(|(at, part)| paint(&mut expected, *at, part));
            let sum = lay(over, under);
            let mut last = 0;
            for (at, part) in &sum {
                prop_assert!(*at >= last && part.len() > 0);
                last = at + part.len();
            }
            let mut got = vec![None; SIZE];
            let mut at = 0;
            for part in complete(sum, 0, SIZE as u64) {
                paint(&mut got, at, &part);
                at += part.len();
            }
            prop_assert_eq!(at, SIZE as u64);
            prop_assert_eq!(got, expected);
        }
    }
}
