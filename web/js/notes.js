// Notes of the nodes that must be seen even when a node was cancelled: they stay in the corner until they are closed.
import { app } from '../../../scripts/app.js'
import { api } from '../../../scripts/api.js'

app.registerExtension({
  name: 'stable_keypoints.notes',
  setup() {
    api.addEventListener('stable_keypoints.note', ({ detail }) => {
      app.extensionManager.toast.add({ severity: detail.severity, summary: detail.title, detail: detail.text })
    })
  },
})
