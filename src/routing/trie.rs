//! Words in a tree of bytes: all that a text begins with are found in one walk along it.

/// Nodes lie in one vector; the children of each are next to each other, by their byte.
#[derive(Clone, Debug, Default)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Its children are `nodes[first..first + count]`, reached by `bytes` at the same places.
    first: u32,
    count: u32,
    /// The numbers of the words that end here, lowest first.
    words: Vec<u16>,
}

impl Trie {
    /// Over words with their numbers.
    pub(super) fn new(mut words: Vec<(Vec<u8>, u16)>) -> Self {
        words.sort();
        let mut trie = Self {
            nodes: vec![Node::default()],
            bytes: vec![0],
        };
        let mut pending = vec![(0, 0, words)];
        while let Some((node, depth, words)) = pending.pop() {
            let (ending, longer): (Vec<_>, Vec<_>) =
                words.into_iter().partition(|(word, _)| word.len() == depth);
            trie.nodes[node].words = ending.into_iter().map(|(_, number)| number).collect();
            let first = trie.nodes.len();
            for group in longer.chunk_by(|(one, _), (two, _)| one[depth] == two[depth]) {
                pending.push((trie.nodes.len(), depth + 1, group.to_vec()));
                trie.nodes.push(Node::default());
                trie.bytes.push(group[0].0[depth]);
            }
            trie.nodes[node].first = first as u32;
            trie.nodes[node].count = (trie.nodes.len() - first) as u32;
        }
        trie
    }

    /// Calls `found` with the numbers of the words that `text` begins with, shortest first.
    pub(super) fn walk(&self, text: impl Iterator<Item = u8>, mut found: impl FnMut(&[u16])) {
        let Some(mut node) = self.nodes.first() else {
            return;
        };
        for byte in text {
            if !node.words.is_empty() {
                found(&node.words);
            }
            let first = node.first as usize;
            let children = &self.bytes[first..first + node.count as usize];
            match children.iter().position(|&child| child == byte) {
                Some(place) => node = &self.nodes[first + place],
                None => return,
            }
        }
        if !node.words.is_empty() {
            found(&node.words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(trie: &Trie, text: &str) -> Vec<u16> {
        let mut all = Vec::new();
        trie.walk(text.bytes(), |words| all.extend_from_slice(words));
        all
    }

    #[test]
    fn all_words_that_a_text_begins_with_are_found() {
        let words = ["user:", "", "user:1", "session:", "user:", "u"];
        let numbered = words
            .iter()
            .zip(0..)
            .map(|(word, n)| (word.as_bytes().to_vec(), n));
        let trie = Trie::new(numbered.collect());
        assert_eq!(found(&trie, "user:12"), [1, 5, 0, 4, 2]);
        assert_eq!(found(&trie, "user"), [1, 5]);
        assert_eq!(found(&trie, "session:"), [1, 3]);
        assert_eq!(found(&trie, ""), [1]);
        assert!(found(&Trie::default(), "x").is_empty());
    }
}
