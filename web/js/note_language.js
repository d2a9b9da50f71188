// A note of a template holds its text in several languages: while nobody has edited it, it is shown in the page's.
import { app } from '../../../scripts/app.js'

app.registerExtension({
  name: 'stable_keypoints.note_language',
  loadedGraphNode(node) {
    const texts = node.properties?.stable_keypoints_note
    if (!texts) return
    const [widget] = node.widgets
    const language = app.extensionManager.setting.get('Comfy.Locale').startsWith('zh') ? 'zh' : 'en'
    if (Object.values(texts).includes(widget.value)) widget.value = texts[language]
  },
})
