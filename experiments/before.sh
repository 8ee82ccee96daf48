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

# at SIDE COMMAND ...: runs Python's COMMAND with the package of $before (SIDE before) or of this tree
# (after), in its folder.
at() {
  local python=$PWD/.venv/bin/python tree=$PWD
  if [ "$1" = before ]; then tree=$before; fi
  (cd "$tree" && PYTHONPATH=$tree "$python" "${@:2}")
}

# face_before_after FOLDER [OPTION ...]: portraits turned to both sides (options of
# tools/turn_heads.py) and stage 1 against rendered truth, of $before and of this tree, as
# FOLDER/sheet.jpg and FOLDER/results.json. VASA_MEDIA: folder with portraits_test/; VASA_FACEKIT.
face_before_after() {
  local folder=$1 top=$PWD side
  local name=${folder#*_}
  shift
  mkdir -p out
  for side in before after; do
    at $side "$top/tools/turn_heads.py" "$top/out/${name}_$side.npy" \
      --portraits "$VASA_MEDIA/portraits_test" "$@"
    rm -f "$top/out/${name}_$side.json" # else what an earlier run measured is taken for this one
    at $side -m vasa_jax.cli.main evaluate face lite --identities 6 --pairs 10 --states 0 --clips= \
      --judges= --source portrait --json "$top/out/${name}_$side.json" > "$top/out/${name}_$side.txt"
  done
  .venv/bin/python tools/turn_heads.py --sheet "$folder/sheet.jpg" out/"$name"_{before,after}.npy
  .venv/bin/python experiments/before_after.py "$folder" "$name"
}
