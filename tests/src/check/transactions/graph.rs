//! Which transaction must come before which, and why.
//!
//! Nodes are transactions; an edge from one to another says that the first comes before the second in every
//! order that explains the answers. A *hub* stands for a whole set: many sources, one hub, many targets in
//! place of an edge for each pair. A path through a hub counts as one edge.

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Its write was replaced by the other.
    Overwritten,
    /// Its write was read by the other.
    ReadBy,
    /// It read what the other replaced.
    Missed,
    /// It missed a key in a range that the other wrote.
    MissedInRange,
    /// It was answered before the other was called.
    RealTime,
}

impl Kind {
    /// True for both kinds of anti-dependency.
    pub(super) fn is_missed(self) -> bool {
        matches!(self, Kind::Missed | Kind::MissedInRange)
    }
}

/// The end of an edge, and what proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    pub(super) to: usize,
    pub(super) kind: Kind,
    /// The key; 0 for real time.
    pub(super) key: usize,
    /// True if the edge leaves a hub, where the edge that entered it says why.
    pub(super) from_hub: bool,
}

/// Edges as they are found.
#[derive(Debug)]
pub(super) struct Graph {
    transactions: usize,
    nodes: usize,
    budget_edges: u64,
    edges: Vec<(usize, Edge)>,
    refused: bool,
}

impl Graph {
    pub(super) fn new(transactions: usize, budget_edges: u64) -> Graph {
        Graph {
            transactions,
            nodes: transactions,
            budget_edges,
            edges: Vec::new(),
            refused: false,
        }
    }

    /// Adds an edge, unless both ends are one.
    pub(super) fn add(&mut self, from: usize, to: usize, kind: Kind, key: usize) {
        let from_hub = from >= self.transactions;
        if from != to {
            let edge = Edge {
                to,
                kind,
                key,
                from_hub,
            };
            self.push(from, edge);
        }
    }

    /// Adds an edge from each source (with its kind) to each target but itself.
    pub(super) fn add_all(&mut self, sources: &[(usize, Kind)], targets: &[usize], key: usize) {
        const PAIRS_MAX: usize = 16;
        if sources.is_empty() || targets.is_empty() {
            return;
        }
        let few = sources.len() * targets.len() <= PAIRS_MAX;
        let both = |source: &usize| targets.binary_search(source).is_ok();
        let mut hub = None;
        for (source, kind) in sources {
            // A source that is a target too must not reach itself through the hub.
            if few || both(source) {
                for target in targets {
                    self.add(*source, *target, *kind, key);
                }
                continue;
            }
            let hub = *hub.get_or_insert_with(|| {
                self.nodes += 1;
                self.nodes - 1
            });
            self.add(*source, hub, *kind, key);
        }
        if let Some(hub) = hub {
            for target in targets {
                self.add(hub, *target, Kind::Overwritten, key);
            }
        }
    }

    /// True if an edge was left out for the budget.
    pub(super) fn over_budget(&self) -> bool {
        self.refused
    }

    fn push(&mut self, from: usize, edge: Edge) {
        if self.edges.len() as u64 >= self.budget_edges {
            self.refused = true;
        } else {
            self.edges.push((from, edge));
        }
    }

    /// The edges in the order of their sources, each once.
    pub(super) fn index(mut self) -> Index {
        self.edges.sort_unstable();
        self.edges.dedup();
        let mut starts = vec![0; self.nodes + 1];
        for (from, _) in &self.edges {
            starts[from + 1] += 1;
        }
        for node in 0..self.nodes {
            starts[node + 1] += starts[node];
        }
        Index {
            transactions: self.transactions,
            starts,
            edges: self.edges.into_iter().map(|(_, edge)| edge).collect(),
        }
    }
}

/// Edges by their source.
#[derive(Debug)]
pub(super) struct Index {
    /// Nodes below this are transactions, others hubs.
    pub(super) transactions: usize,
    starts: Vec<usize>,
    edges: Vec<Edge>,
}

impl Index {
    /// Number of nodes, hubs included.
    pub(super) fn nodes(&self) -> usize {
        self.starts.len() - 1
    }

    /// The edges that leave a node.
    pub(super) fn from(&self, node: usize) -> &[Edge] {
        &self.edges[self.starts[node]..self.starts[node + 1]]
    }
}

/// The strongly connected components with more than one node: Tarjan ("Depth-first search and linear graph
/// algorithms", 1972), with a stack of its own in place of recursion. `next(node, n)` is the nth successor.
pub(super) fn components(nodes: usize, next: impl Fn(usize, usize) -> Option<Step>) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let mut number = vec![UNSEEN; nodes];
    let mut lowest = vec![0; nodes];
    let mut on_stack = vec![false; nodes];
    let (mut stack, mut path, mut found) = (Vec::new(), Vec::new(), Vec::new());
    let mut count = 0;
    for root in 0..nodes {
        if number[root] != UNSEEN {
            continue;
        }
        path.push((root, 0));
        while let Some((node, child)) = path.last_mut() {
            let node = *node;
            if *child == 0 {
                number[node] = count;
                lowest[node] = count;
                count += 1;
                stack.push(node);
                on_stack[node] = true;
            }
            let step = next(node, *child);
            *child += 1;
            match step {
                Some(Step::To(to)) if number[to] == UNSEEN => path.push((to, 0)),
                Some(Step::To(to)) if on_stack[to] => lowest[node] = lowest[node].min(number[to]),
                Some(Step::To(_) | Step::Skip) => (),
                None => {
                    path.pop();
                    if let Some((parent, _)) = path.last() {
                        lowest[*parent] = lowest[*parent].min(lowest[node]);
                    }
                    if lowest[node] == number[node] {
                        let start = stack.iter().rposition(|entry| *entry == node).unwrap_or(0);
                        let component = stack.split_off(start);
                        for entry in &component {
                            on_stack[*entry] = false;
                        }
                        if component.len() > 1 {
                            found.push(component);
                        }
                    }
                }
            }
        }
    }
    found
}

/// One successor in a walk.
pub(super) enum Step {
    /// This node.
    To(usize),
    /// None here, but others may follow.
    Skip,
}
