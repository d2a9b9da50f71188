// Workflows that were saved by an older version of the pack open with every value in its place.
import { app } from '../../../scripts/app.js'
import { migrate } from './migrate.js'

app.registerExtension({
  name: 'stable_keypoints.old_workflows',
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith('StableKP')) return
    const configure = nodeType.prototype.configure
    nodeType.prototype.configure = function (saved) {
      migrate(saved)
      return configure.apply(this, arguments)
    }
  },
})
