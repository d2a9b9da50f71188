// A note of a template holds its text in several languages: while nobody has edited it, it is shown in the page's.
import { app } from '../../../scripts/app.js'
import { pageLanguage } from './language.js'

app.registerExtension({
  name: 'stable_keypoints.note_language',
  loadedGraphNode(node) {
    const texts = node.properties?.stable_keypoints_note
    if (!texts) return
    const [widget] = node.widgets
    if (Object.values(texts).includes(widget.value)) widget.value = texts[pageLanguage()] ?? texts.en
  },
})
