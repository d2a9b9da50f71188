// The language of the page: "en", "zh", ... without its region.
import { app } from '../../../scripts/app.js'

export const pageLanguage = () => String(app.extensionManager?.setting?.get('Comfy.Locale') ?? 'en').split('-')[0]
