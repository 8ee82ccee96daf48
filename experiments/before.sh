# Sourced by a run.sh, in the repository's root: tree_before FILE [COMMIT] makes a working tree of the
# commit before FILE was added (as COMMIT, by default HEAD, knows it), names it $before, and removes it
# when the script ends.
tree_before() {
  local folder added
  added=$(git log -1 --format=%H "${2:-HEAD}" --diff-filter=A -- "$1")
  folder=$(mktemp -d)
  before=$folder/before
  trap "git -C '$PWD' worktree remove --force '$before'; rm -rf '$folder'" EXIT
  git worktree add -q --detach "$before" "$added^"
}
